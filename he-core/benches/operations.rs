//! The operations of `he_core::benchmarks` under criterion, on one thread:
//! `cargo bench -p he-core --features benchmarks`.

use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use he_core::benchmarks::{Memory, Operation, Operations};
use he_core::params::{N4096_DEPTH3, N8192_SCALE40, Params};
use he_core::ring::kernel;

fn operations(criterion: &mut Criterion) {
    for params in [&N4096_DEPTH3, &N8192_SCALE40] {
        operations_of(params, criterion);
    }
}

fn operations_of(params: &'static Params, criterion: &mut Criterion) {
    let n = params.n();
    let mut words = vec![0; Memory::words(params)];
    let (mut integers, mut floats, mut doubles) = (vec![0; 4 * n], vec![0.0; 2 * n], vec![0.0; n]);
    let memory = Memory {
        words: &mut words,
        integers: &mut integers,
        floats: &mut floats,
        doubles: &mut doubles,
    };
    let mut operations = Operations::new(params, memory).unwrap();
    let mut group = criterion.benchmark_group(format!("{}/{}", params.name(), kernel::backend()));
    for operation in Operation::ALL {
        group.bench_function(operation.name(), |bencher| {
            bencher.iter_custom(|rounds| {
                (0..rounds)
                    .map(|_| {
                        operations.prepare(operation).unwrap();
                        let start = Instant::now();
                        operations.run(operation).unwrap();
                        start.elapsed()
                    })
                    .sum()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, operations);
criterion_main!(benches);
