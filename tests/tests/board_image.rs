//! The release image of a board: what must not be in it, and how large it is.

use std::path::PathBuf;

use he_edge_tests::{MAX_CODE, MAX_KEEPING_CODE};
use host_runner::device::DEFAULT_BOARD;
use host_runner::device::firmware_build::{self, Options};
use host_runner::image::Image;
use host_runner::planning::DEFAULT_SET;

fn build(program: &str, features: &[&str]) -> PathBuf {
    let options = Options {
        board: DEFAULT_BOARD,
        model: None,
        params: DEFAULT_SET,
        features,
    };
    firmware_build::build_program(&options, program).unwrap()
}

#[test]
fn the_release_image_cannot_panic_or_allocate() {
    let image = Image::read(&build("firmware", &[])).unwrap();
    assert_eq!(image.unwanted, [""; 0]);
    let most = MAX_CODE + MAX_KEEPING_CODE;
    assert!(image.sizes.code <= most, "{:?}", image.sizes);
    let model = he_nn::bundled::model("mnist-mlp64").unwrap();
    assert_eq!(image.sizes.model, model.len() as u64);
}

#[test]
fn the_sensor_cannot_panic_or_allocate() {
    let image = Image::read(&build("sensor", &[])).unwrap();
    assert_eq!(image.unwanted, [""; 0]);
    assert!(image.sizes.code <= MAX_CODE, "{:?}", image.sizes);
}

/// The same check on an image that panics on request.
#[test]
fn what_panics_is_found() {
    let unwanted = Image::read(&build("firmware", &["fault-injection"]))
        .unwrap()
        .unwanted;
    for part in [
        "symbol ",
        "4core9panicking",
        "firmware/src/fault_injection.rs",
    ] {
        assert!(
            unwanted.iter().any(|line| line.contains(part)),
            "{part}: {unwanted:?}"
        );
    }
}
