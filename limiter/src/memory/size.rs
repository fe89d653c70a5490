//! How many bytes of the GPU an allocation takes.

use crate::abi::{Array3dDescriptor, ArrayDescriptor};

/// The driver hands out linear memory in multiples of this many bytes.
pub const GRAIN: u64 = 512;
/// The driver gives memory to a pool in multiples of this many bytes.
pub const POOL_GRAIN: u64 = 32 << 20;

/// The driver takes memory of the GPU in pages of this many bytes.
pub const PAGE: u64 = 2 << 20;
/// Allocations from this size on have pages of their own; smaller ones of a context share pages.
pub const LARGE: u64 = 1 << 20;

const LAYERED: u32 = 0x01;
const SPARSE: u32 = 0x40;
const DEFERRED: u32 = 0x80;

pub fn linear(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(GRAIN).unwrap_or(u64::MAX)
}

/// `bytes` in whole pages.
pub fn whole(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX)
}

/// `bytes` in whole pieces of a pool.
pub fn pooled(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(POOL_GRAIN).unwrap_or(u64::MAX)
}

/// Rows of pitched memory, before the driver has returned their length.
pub fn pitched(width: u64, height: u64) -> u64 {
    linear(width.checked_next_multiple_of(GRAIN).and_then(|row| row.checked_mul(height)).unwrap_or(u64::MAX))
}

/// An array of one or two dimensions.
pub fn array(d: &ArrayDescriptor) -> u64 {
    let (width, height, format, channels) = (d.width, d.height, d.format, d.channels);
    mipmaps(&Array3dDescriptor { width, height, depth: 0, format, channels, flags: 0 }, 1)
}

/// An array with `levels` mipmap levels, each half as long in every dimension as the one before; layers stay as many.
/// 0 for arrays that get their memory later, by mapping.
pub fn mipmaps(d: &Array3dDescriptor, levels: u32) -> u64 {
    if d.flags & (SPARSE | DEFERRED) != 0 {
        return 0;
    }
    let layered = d.flags & LAYERED != 0;
    let mut total = 0_u64;
    for level in 0..levels.clamp(1, 32) {
        let shrink = |n: usize| (n as u64).checked_shr(level).unwrap_or(0).max(1);
        let depth = if layered { (d.depth as u64).max(1) } else { shrink(d.depth) };
        let plane = plane(d.format, d.channels, shrink(d.width), shrink(d.height));
        total = total.saturating_add(plane.saturating_mul(depth));
    }
    linear(total)
}

/// One plane; formats by `CUarray_format`.
fn plane(format: u32, channels: u32, width: u64, height: u64) -> u64 {
    let blocks = |bytes: u64| width.div_ceil(4).saturating_mul(height.div_ceil(4)).saturating_mul(bytes);
    let each = |bytes: u64| width.saturating_mul(height).saturating_mul(bytes);
    let channels = u64::from(channels.clamp(1, 4));
    match format {
        // 8 bits
        0x01 | 0x08 | 0xc0..=0xc2 | 0xc6..=0xc8 => each(channels),
        // 16 bits
        0x02 | 0x09 | 0x10 | 0xc3..=0xc5 | 0xc9..=0xcb => each(2 * channels),
        // 32 bits
        0x03 | 0x0a | 0x20 => each(4 * channels),
        // 10, 10, 10 and 2 bits
        0x50 => each(4),
        // BC1 and BC4: 8 bytes for a block of 4 by 4; the other compressed formats: 16
        0x91 | 0x92 | 0x97 | 0x98 => blocks(8),
        0x93..=0x96 | 0x99..=0x9e => blocks(16),
        // NV12: a byte of brightness, half a byte of colour
        0xb0 => each(1).saturating_add(each(1).div_ceil(2)),
        // the other video formats and unknown ones: the maximum
        _ => each(8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(width: usize, height: usize, depth: usize, format: u32, channels: u32, flags: u32) -> Array3dDescriptor {
        Array3dDescriptor { width, height, depth, format, channels, flags }
    }

    #[test]
    fn arrays_take_elements_times_channels_times_bytes() {
        let float = 0x20;
        assert_eq!(array(&ArrayDescriptor { width: 1024, height: 0, format: float, channels: 1 }), 4096);
        assert_eq!(array(&ArrayDescriptor { width: 1024, height: 64, format: float, channels: 4 }), 1 << 20);
        assert_eq!(mipmaps(&of(64, 64, 64, 0x01, 1, 0), 1), 64 * 64 * 64);
        assert_eq!(mipmaps(&of(64, 64, 64, 0x10, 2, 0), 1), 4 * 64 * 64 * 64);
        assert_eq!(mipmaps(&of(1 << 20, 1 << 20, 0, 0x03, 1, SPARSE), 1), 0);
        assert_eq!(array(&ArrayDescriptor { width: usize::MAX, height: 9, format: float, channels: 4 }), u64::MAX);
    }

    #[test]
    fn mipmaps_halve_what_is_no_layer() {
        let levels = [64 * 64 * 64, 32 * 32 * 32, 16 * 16 * 16, 8 * 8 * 8, 4 * 4 * 4, 2 * 2 * 2, 1];
        let sum: u64 = levels.iter().sum();
        assert_eq!(mipmaps(&of(64, 64, 64, 0x01, 1, 0), 7), linear(sum));
        assert_eq!(mipmaps(&of(64, 64, 5, 0x01, 1, LAYERED), 2), linear(5 * (64 * 64 + 32 * 32)));
    }

    #[test]
    fn compressed_formats_count_blocks() {
        assert_eq!(mipmaps(&of(256, 256, 0, 0x91, 4, 0), 1), 64 * 64 * 8);
        assert_eq!(mipmaps(&of(256, 256, 0, 0x9d, 4, 0), 1), 64 * 64 * 16);
    }

    #[test]
    fn what_does_not_fit_a_number_fits_no_card() {
        assert_eq!(linear(u64::MAX), u64::MAX);
        assert_eq!(pitched(u64::MAX, 2), u64::MAX);
        assert_eq!(pitched(1, 3), 1536);
    }
}
