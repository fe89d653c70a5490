//! Which of the machine's GPUs are offered, where an administrator says so: expressions by index, PCI address, id or
//! model, alike for all vendors. Pure.

use std::str::FromStr;

use crate::device::facts::Facts;
use crate::device::host::{HostDevice, Part};
use crate::device::roots;
use crate::device::scan::{Remark, ScanIssue};

const INCLUDE: &str = "--include-gpus";
const EXCLUDE: &str = "--exclude-gpus";

/// The flags; without one of them every GPU is offered.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Choice {
    /// Offer only these GPUs, in all profiles: by index (0), PCI address (0000:3b:00.0, with all its partitions), id or name
    /// (GPU-..., amdgpu_xcp_3) or words of the model (model=A100); joined by commas
    #[arg(long = "include-gpus", env = "KERF_INCLUDE_GPUS", value_delimiter = ',', value_name = "GPUS")]
    pub include: Vec<Expression>,
    /// Do not offer these GPUs, named in the same way, also where --include-gpus names them. Pods that have one keep it
    #[arg(long = "exclude-gpus", env = "KERF_EXCLUDE_GPUS", value_delimiter = ',', value_name = "GPUS")]
    pub exclude: Vec<Expression>,
}

/// What names GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    /// As it was given.
    text: String,
    by: By,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum By {
    /// N of `/dev/nvidia<N>` or `/dev/dri/card<N>`.
    Index(u32),
    /// The whole GPU, with its partitions, instances or functions; or one function.
    Pci(String),
    /// Of a GPU or partition, or the kernel's name.
    Id(String),
    /// Consecutive words of the model, in small letters.
    Model(Vec<String>),
}

impl Choice {
    /// Whether every GPU is offered.
    pub fn is_all(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// Why a GPU is not offered; `None` where it is.
    pub fn refusal(&self, host: &HostDevice) -> Option<ScanIssue> {
        if let Some(expression) = self.exclude.iter().find(|expression| expression.names(host)) {
            return Some(ScanIssue::ExcludedBy(expression.text.clone()));
        }
        let included = self.include.is_empty() || self.include.iter().any(|expression| expression.names(host));
        (!included).then_some(ScanIssue::NotIncluded)
    }

    /// A remark for each expression that names none of these GPUs.
    pub fn without_gpus(&self, hosts: &[HostDevice]) -> Vec<Remark> {
        let given = [(INCLUDE, &self.include), (EXCLUDE, &self.exclude)];
        let all = given.into_iter().flat_map(|(flag, list)| list.iter().map(move |expression| (flag, expression)));
        let idle = all.filter(|(_, expression)| !hosts.iter().any(|host| expression.names(host)));
        let remark = |(flag, expression): (&str, &Expression)| {
            let why = ScanIssue::NamesNone(expression.text.clone());
            Remark { subject: flag.to_owned(), left_out: false, why }
        };
        idle.map(remark).collect()
    }
}

impl Expression {
    fn names(&self, host: &HostDevice) -> bool {
        match &self.by {
            By::Index(index) => *index == self::index(host),
            // another function of a slot may be another GPU
            By::Pci(address) => {
                host.pci == *address || (host.origin.part != Part::Whole && is_part_of(&host.origin.card, address))
            }
            By::Id(id) => ids(host).any(|own| own.eq_ignore_ascii_case(id)),
            By::Model(words) => models(host).any(|model| {
                let model = self::words(model);
                model.windows(words.len()).any(|part| part == words)
            }),
        }
    }
}

/// The kernel's name; of an instance (MIG) that of its GPU.
fn kernels(host: &HostDevice) -> &str {
    host.origin.name.split('/').next().unwrap_or_default()
}

/// What names it, or the GPU that an instance (MIG) is of: who leaves that out means all of it, however it is divided.
fn ids(host: &HostDevice) -> impl Iterator<Item = &str> {
    let of_gpu = match (&host.facts, &host.origin.part) {
        (Facts::Nvidia(facts), Part::Instance { .. }) => [kernels(host), &*facts.gpu],
        _ => [""; 2],
    };
    [host.device.id.as_str(), &*host.origin.name].into_iter().chain(of_gpu)
}

/// The number in the kernel's name.
fn index(host: &HostDevice) -> u32 {
    let digits = kernels(host).trim_start_matches(|c: char| !c.is_ascii_digit());
    let instance = matches!(host.origin.part, Part::Instance { .. });
    digits.parse().ok().filter(|_| instance).unwrap_or(host.device.index)
}

/// Whether a GPU, by its address with or without the function, is the one at `address`.
fn is_part_of(card: &str, address: &str) -> bool {
    card == address || address.strip_prefix(card).is_some_and(|function| function.starts_with('.'))
}

/// All names of a GPU's model: as the driver tells it, that of an instance's GPU, and the PCI device id.
fn models(host: &HostDevice) -> impl Iterator<Item = &str> {
    let of_facts = match &host.facts {
        Facts::Nvidia(facts) => Some(&*facts.model),
        Facts::Amd(facts) => Some(&*facts.product),
        Facts::Intel(_) | Facts::None => None,
    };
    [&*host.device.model, &*host.origin.model_id].into_iter().chain(of_facts)
}

/// `NVIDIA A100-PCIE-40GB` is `nvidia`, `a100`, `pcie` and `40gb`.
fn words(text: &str) -> Vec<String> {
    let split = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    split.map(str::to_lowercase).collect()
}

/// A PCI address as sysfs spells it. The domain may be missing, or be longer and begin with zeros, as NVIDIA's tools
/// show it.
fn pci(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let parts: Vec<&str> = text.split(':').collect();
    let address = match parts.as_slice() {
        [bus, device] => format!("0000:{bus}:{device}"),
        [domain, ..] if domain.len() <= 8 => roots::short_domain(&text),
        _ => return None,
    };
    roots::is_address(&address).then_some(address)
}

impl FromStr for Expression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (kind, value) =
            text.split_once('=').map_or((None, text), |(kind, value)| (Some(kind.trim()), value.trim()));
        let index = || value.parse().map(By::Index).map_err(|_| "expected an index, such as 0".to_owned());
        let address =
            || pci(value).map(By::Pci).ok_or_else(|| "expected a PCI address, such as 0000:3b:00.0".to_owned());
        if value.is_empty() {
            return Err("expected an index, a PCI address, an id or model=NAME".to_owned());
        }
        let by = match kind {
            None if value.bytes().all(|byte| byte.is_ascii_digit()) => index()?,
            None if value.contains(':') => address()?,
            Some("index") => index()?,
            Some("pci") => address()?,
            None | Some("id" | "uuid") => By::Id(value.to_owned()),
            Some("model") => match words(value) {
                words if words.is_empty() => return Err("expected words of a model, such as model=A100".to_owned()),
                words => By::Model(words),
            },
            Some(other) => return Err(format!("unknown kind {other:?}: expected index, pci, id, uuid or model")),
        };
        Ok(Self { text: text.to_owned(), by })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::device::facts::NvidiaFacts;
    use crate::device::host::{Origin, Vendor};
    use kerf::device::Device;
    use kerf::units::Mib;

    fn host(vendor: Vendor, index: u32, id: &str, pci: &str, model: &str) -> HostDevice {
        let name = match vendor {
            Vendor::Nvidia => format!("nvidia{index}"),
            _ => format!("card{index}"),
        };
        let mut device = Device::new(id, index, Mib(1024));
        device.model = model.into();
        HostDevice { pci: pci.to_owned(), ..HostDevice::new(device, Origin::whole(vendor, "driver", &name, pci)) }
    }

    fn names(expression: &str, host: &HostDevice) -> bool {
        expression.parse::<Expression>().unwrap().names(host)
    }

    #[test]
    fn a_gpu_is_named_in_each_way() {
        let h200 = host(Vendor::Nvidia, 3, "GPU-5c0d6a2e", "0000:3b:00.0", "NVIDIA H200");
        for own in [
            "3",
            "index=3",
            "0000:3b:00.0",
            "3B:00.0",
            "00000000:3B:00.0",
            "pci=0000:3b:00.0",
            "GPU-5c0d6a2e",
            "gpu-5C0D6A2E",
            "uuid=GPU-5c0d6a2e",
            "id=nvidia3",
            "nvidia3",
            "model=H200",
            "model=nvidia h200",
            " model = NVIDIA H200 ",
        ] {
            assert!(names(own, &h200), "{own}");
        }
        for other in [
            "0",
            "33",
            "0000:3b:00.1",
            "0001:3b:00.0",
            "GPU-5c0d",
            "nvidia",
            "model=H20",
            "model=H200 NVIDIA",
            "model=A100",
        ] {
            assert!(!names(other, &h200), "{other}");
        }
        let arc = HostDevice {
            origin: Origin {
                model_id: "0x56a0".into(),
                ..Origin::whole(Vendor::Intel, "i915", "card1", "0000:03:00.0")
            },
            ..host(Vendor::Intel, 1, "0000:03:00.0", "0000:03:00.0", "Intel 0x56a0")
        };
        assert!(names("card1", &arc) && names("model=0x56a0", &arc) && names("1", &arc));
    }

    #[test]
    fn an_address_names_the_gpu_with_all_its_parts() {
        let partition = |id: &str, part, pci: &str| {
            let origin = Origin { card: "0000:0a:00".into(), name: id.into(), part, ..Origin::default() };
            HostDevice { pci: pci.to_owned(), ..HostDevice::new(Device::new(id, 1, Mib(1)), origin) }
        };
        let first = partition("0000:0a:00.0", Part::Whole, "0000:0a:00.0");
        let second = partition("amdgpu_xcp_1", Part::Partition, "");
        assert!([&first, &second].iter().all(|host| names("0000:0a:00.0", host)));
        assert!([&first, &second].iter().all(|host| !names("0000:0a:01.0", host)));
        assert_eq!([&first, &second].map(|host| names("id=0000:0a:00.0", host)), [true, false]);
        assert_eq!([&first, &second].map(|host| names("amdgpu_xcp_1", host)), [false, true]);
        let mut instance = host(Vendor::Nvidia, 15, "MIG-1", "0000:3b:00.0", "NVIDIA A100 MIG 3g.20gb");
        instance.origin.name = "nvidia1/gi1".into();
        instance.origin.part = Part::Instance { gi: 1, ci: 0, profile: "3g.20gb".into() };
        assert!(names("1", &instance) && names("0000:3b:00.0", &instance) && !names("15", &instance));
        // the GPU itself by all that names it
        instance.facts = Facts::Nvidia(Arc::new(NvidiaFacts { gpu: "GPU-1".into(), ..NvidiaFacts::default() }));
        for own in ["GPU-1", "uuid=gpu-1", "nvidia1", "nvidia1/gi1", "MIG-1"] {
            assert!(names(own, &instance), "{own}");
        }
        assert!(!names("nvidia1/gi2", &instance) && !names("GPU-15", &instance) && !names("nvidia", &instance));
    }

    #[test]
    fn another_function_of_a_slot_is_another_gpu() {
        let [first, second] = ["0000:05:00.0", "0000:05:00.1"].map(|pci| {
            let origin = Origin { card: "0000:05:00".into(), name: pci.into(), ..Origin::default() };
            HostDevice { pci: pci.to_owned(), ..HostDevice::new(Device::new(pci, 1, Mib(1)), origin) }
        });
        assert_eq!([&first, &second].map(|host| names("05:00.1", host)), [false, true]);
        let far = host(Vendor::Nvidia, 0, "GPU-1", "10000:3b:00.0", "NVIDIA H200");
        assert!(names("00010000:3B:00.0", &far) && names("10000:3b:00.0", &far) && !names("3b:00.0", &far));
    }

    #[test]
    fn both_lists_decide_and_idle_expressions_are_told() {
        let hosts = [0, 1, 2]
            .map(|n| host(Vendor::Amd, n, &format!("0000:0{n}:00.0"), &format!("0000:0{n}:00.0"), "MI210"));
        let list = |text: &str| text.split_terminator(',').map(|one| one.parse().unwrap()).collect();
        let choice = |include: &str, exclude: &str| Choice { include: list(include), exclude: list(exclude) };
        let offered = |choice: &Choice| {
            let kept = hosts.iter().filter(|host| choice.refusal(host).is_none());
            kept.map(|host| host.device.index).collect::<Vec<_>>()
        };
        assert!(choice("", "").is_all());
        assert_eq!(offered(&choice("", "")), [0, 1, 2]);
        assert_eq!(offered(&choice("0,2", "")), [0, 2]);
        assert_eq!(offered(&choice("", "1")), [0, 2]);
        assert_eq!(offered(&choice("model=MI210", "0,0000:02:00.0")), [1]);
        let idle = choice("0,model=MI300X", "9").without_gpus(&hosts);
        let told: Vec<String> = idle.iter().map(|remark| format!("{}: {}", remark.subject, remark.why)).collect();
        assert!(told[0].starts_with("--include-gpus: \"model=MI300X\" names no GPU"), "{told:?}");
        assert!(told[1].starts_with("--exclude-gpus: \"9\" names no GPU") && idle.iter().all(Remark::is_problem));
        let why = choice("0", "0").refusal(&hosts[0]).unwrap();
        assert_eq!(
            (why.code(), why.to_string().as_str()),
            ("excluded-by-flag", "--exclude-gpus names it by \"0\"")
        );
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        for (bad, word) in [
            ("", "expected an index"),
            ("model=", "expected an index"),
            ("model=---", "words of a model"),
            ("index=x", "an index, such as 0"),
            ("99999999999", "an index, such as 0"),
            ("pci=zz", "a PCI address"),
            ("3b:00", "a PCI address"),
            ("0000:3b:00.9", "a PCI address"),
            ("000010000:3b:00.0", "a PCI address"),
            ("0000:3b:00:0", "a PCI address"),
            ("colour=red", "unknown kind \"colour\""),
        ] {
            assert!(bad.parse::<Expression>().unwrap_err().contains(word), "{bad}");
        }
    }
}
