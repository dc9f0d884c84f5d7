//! The release image of a board: what must not be in it, and how large it is.

use std::path::PathBuf;

use he_edge_tests::{MAX_CODE, MAX_KEEPING_CODE};
use he_nn::boards;
use he_nn::model::Model;
use he_nn::plan::WeightMode;
use host_runner::commands::sense::MASKED_KEY;
use host_runner::device::DEFAULT_BOARD;
use host_runner::device::firmware_build::{self, Options};
use host_runner::image::Image;
use host_runner::planning::{self, DEFAULT_SET};

fn build(program: &str, features: &[&str]) -> PathBuf {
    let options = Options {
        board: DEFAULT_BOARD,
        model: None,
        params: DEFAULT_SET,
        features,
        inputs: None,
    };
    firmware_build::build_program(&options, program).unwrap()
}

#[test]
fn the_release_image_cannot_panic_or_allocate() {
    let image = Image::read(&build("firmware", &[])).unwrap();
    assert_eq!(image.unwanted, [""; 0]);
    let most = MAX_CODE + MAX_KEEPING_CODE;
    assert!(image.sizes.code <= most, "{:?}", image.sizes);
    // Its weights as they are multiplied: this board has flash for them.
    let model = Model::parse(he_nn::bundled::model("mnist-mlp64").unwrap()).unwrap();
    let target = boards::find(DEFAULT_BOARD).unwrap().target();
    let plan = planning::plan(Some(DEFAULT_SET), model, WeightMode::Plain, target).unwrap();
    assert!(plan.is_prepared());
    assert_eq!(image.sizes.model, plan.prepared_bytes() as u64);
}

#[test]
fn the_sensor_cannot_panic_or_allocate() {
    for features in [&[][..], &[MASKED_KEY]] {
        let image = Image::read(&build("sensor", features)).unwrap();
        assert_eq!(image.unwanted, [""; 0]);
        assert!(image.sizes.code <= MAX_CODE, "{:?}", image.sizes);
    }
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
