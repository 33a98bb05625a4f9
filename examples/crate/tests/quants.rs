//! One line makes the specs tests of this crate.

qualm::harness!("specs");
