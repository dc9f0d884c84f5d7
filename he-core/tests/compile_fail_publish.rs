//! What must not compile with the feature `publish`: as `compile_fail.rs`, which runs
//! without it too.

#[test]
fn values_are_not_published_without_a_statement() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail_publish/*.rs");
}
