//! What must not compile, with the compiler's words: `compile_fail/*.stderr`, for
//! the compiler of `rust-toolchain.toml`. `TRYBUILD=overwrite` writes them anew.

#[test]
fn what_is_insecure_or_meaningless_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
