//! The he-edge command.

fn main() {}
