//! Enums whose variants have a fixed word each.

/// Declares an enum with a word for each variant, as flags, annotations, metrics and logs have it: `ALL` and `as_str`,
/// and where the type of an error is given for texts that are no such word, `Display` and `FromStr` as well.
#[macro_export]
macro_rules! words {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$of:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        $vis enum $name {
            $($(#[$of])* $variant,)+
        }

        impl $name {
            /// All variants, in the order of their declaration.
            #[allow(dead_code, reason = "of some enums, only the words are used")]
            $vis const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            /// Its word.
            $vis const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
    ($(#[$meta:meta])* $vis:vis enum $name:ident or $error:ident { $($variants:tt)+ }) => {
        $crate::words! { $(#[$meta])* $vis enum $name { $($variants)+ } }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                Self::ALL.into_iter().find(|known| known.as_str() == text).ok_or($error)
            }
        }
    };
}
