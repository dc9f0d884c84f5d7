//! Random changes to training images.

use std::f32::consts::PI;

use chacha20::ChaCha8Rng;
use rand_core::Rng;

use crate::data::{Image, SIDE};

/// Largest random changes to a training image, each drawn uniformly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augmentation {
    /// Pixels, along each axis.
    pub shift: f32,
    /// Degrees.
    pub rotation: f32,
    /// Relative, along each axis.
    pub scale: f32,
    /// Whether half of the images are mirrored, left for right.
    pub mirror: bool,
}

/// Uniform in -1..1.
pub(super) fn uniform(rng: &mut ChaCha8Rng) -> f32 {
    // 24 bits fill the significand.
    (rng.next_u32() >> 8) as f32 / (1u32 << 23) as f32 - 1.0
}

/// Writes an image, changed at random, with pixels from 0 to 1.
pub(super) fn augment(
    image: &Image,
    augmentation: &Augmentation,
    rng: &mut ChaCha8Rng,
    out: &mut [f32],
) {
    let angle = augmentation.rotation * uniform(rng) * PI / 180.0;
    let (sin, cos) = angle.sin_cos();
    let scale_x = 1.0 + augmentation.scale * uniform(rng);
    let scale_y = 1.0 + augmentation.scale * uniform(rng);
    let shift_x = augmentation.shift * uniform(rng);
    let shift_y = augmentation.shift * uniform(rng);
    let mirrored = augmentation.mirror && uniform(rng) < 0.0;
    let centre = (SIDE as f32 - 1.0) / 2.0;
    let pixel = |row: i32, column: i32| {
        let side = 0..SIDE as i32;
        if side.contains(&row) && side.contains(&column) {
            f32::from(image[row as usize * SIDE + column as usize])
        } else {
            0.0
        }
    };
    for (row, line) in out.chunks_exact_mut(SIDE).enumerate() {
        for (column, value) in line.iter_mut().enumerate() {
            let (dx, dy) = (
                column as f32 - centre - shift_x,
                row as f32 - centre - shift_y,
            );
            let dx = if mirrored { -dx } else { dx };
            let x = centre + (cos * dx + sin * dy) * scale_x;
            let y = centre + (cos * dy - sin * dx) * scale_y;
            let (left, top) = (x.floor(), y.floor());
            let (fx, fy) = (x - left, y - top);
            let (left, top) = (left as i32, top as i32);
            let upper = pixel(top, left) * (1.0 - fx) + pixel(top, left + 1) * fx;
            let lower = pixel(top + 1, left) * (1.0 - fx) + pixel(top + 1, left + 1) * fx;
            *value = (upper * (1.0 - fy) + lower * fy) / 255.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;

    use super::*;
    use crate::data::PIXELS;

    fn changed(augmentation: Augmentation, image: &Image) -> [f32; PIXELS] {
        let mut out = [0.0; PIXELS];
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        augment(image, &augmentation, &mut rng, &mut out);
        out
    }

    const NONE: Augmentation = Augmentation {
        shift: 0.0,
        rotation: 0.0,
        scale: 0.0,
        mirror: false,
    };

    fn image() -> Image {
        std::array::from_fn(|pixel| (pixel * 37 % 251) as u8)
    }

    #[test]
    fn no_augmentation_changes_nothing() {
        let image = image();
        for (out, p) in changed(NONE, &image).iter().zip(image) {
            assert!((out - f32::from(p) / 255.0).abs() < 1e-6);
        }
    }

    #[test]
    fn a_mirrored_image_is_either() {
        let image = image();
        let mirror = Augmentation {
            mirror: true,
            ..NONE
        };
        let (mut same, mut mirrored) = (0, 0);
        for seed in 0..100 {
            let mut out = [0.0; PIXELS];
            augment(
                &image,
                &mirror,
                &mut ChaCha8Rng::seed_from_u64(seed),
                &mut out,
            );
            let at = |column: usize| (out[column] * 255.0 - f32::from(image[0])).abs() < 1e-3;
            same += usize::from(at(0));
            mirrored += usize::from(at(SIDE - 1));
        }
        assert!(
            same + mirrored == 100 && same > 30 && mirrored > 30,
            "{same}"
        );
    }
}
