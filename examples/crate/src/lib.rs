//! A crate that ships quantized weights.

#[cfg(test)]
mod tests {
    #[test]
    fn an_ordinary_test() {}
}
