/*!
Logarithms and powers with the same bits everywhere.

The system's C library computes them, each release a little differently. These are musl's, in Rust, and
whatever reaches a report, a bound or a verdict takes them. Square roots need no such care: IEEE 754 rounds
them correctly. The quantizers of ggml keep the arithmetic that their golden files fix.
*/

/// The natural logarithm.
pub fn ln(x: f64) -> f64 {
    libm::log(x)
}

/// The exponential function.
pub fn exp(x: f64) -> f64 {
    libm::exp(x)
}

/// The logarithm to the base 10.
pub fn log10(x: f64) -> f64 {
    libm::log10(x)
}

/// The logarithm to the base 2.
pub fn log2(x: f64) -> f64 {
    libm::log2(x)
}

/// `x` to the power of `y`.
pub fn pow(x: f64, y: f64) -> f64 {
    libm::pow(x, y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bits_everywhere() {
        // x, ln, log10, log2
        #[rustfmt::skip]
        let logarithms: [(f64, u64, u64, u64); 13] = [
            (0.5, 0xbfe62e42_fefa39ef, 0xbfd34413_509f79ff, 0xbff00000_00000000),
            (2.0, 0x3fe62e42_fefa39ef, 0x3fd34413_509f79ff, 0x3ff00000_00000000),
            (3.0, 0x3ff193ea_7aad030a, 0x3fde8927_964fd5fd, 0x3ff95c01_a39fbd68),
            (10.0, 0x40026bb1_bbb55516, 0x3ff00000_00000000, 0x400a934f_0979a371),
            (0.1, 0xc0026bb1_bbb55515, 0xbff00000_00000000, 0xc00a934f_0979a371),
            (1.0000001, 0x3e7ad7f2_847b6492, 0x3e6750e5_ca0b1098, 0x3e835d0f_ea5fccb7),
            (0.9999999, 0xbe7ad7f2_b1049b9f, 0xbe6750e5_f0ba08cd, 0xbe835d10_0a8009b2),
            (1e-12, 0xc03ba18a_998fffa0, 0xc0280000_00000000, 0xc043ee7b_471b3a95),
            (1e300, 0x40859634_47f87fb5, 0x4072c000_00000000, 0x408f24a0_9f1a8b89),
            (1234.5678, 0x401c7951_d51791d7, 0x4008bb6c_3010753b, 0x40248a21_f60ffaf4),
            (7.3e-5, 0xc0230cd3_7ffee7ad, 0xc0108bf5_179792e7, 0xc02b7bc5_def5b91b),
            (f64::MIN_POSITIVE, 0xc086232b_dd7abcd2, 0xc0733a71_46f72a42, 0xc08ff000_00000000),
            (2.5e-310, 0xc0864714_a9115cd0, 0xc07359a2_09a84fbd, 0xc09011e7_3337e924),
        ];
        for (x, natural, decimal, binary) in logarithms {
            let bits = [ln(x), log10(x), log2(x)].map(f64::to_bits);
            assert_eq!(bits, [natural, decimal, binary], "{x:e}");
        }
        // x, e to the power of x
        #[rustfmt::skip]
        let exponentials: [(f64, u64); 6] = [
            (0.5, 0x3ffa6129_8e1e069c),
            (-1.0, 0x3fd78b56_362cef38),
            (10.0, 0x40d5829d_cf950560),
            (-745.0, 0x00000000_00000001),
            (700.25, 0x7f12fd8e_4cbfa413),
            (1e-9, 0x3ff00000_0044b830),
        ];
        for (x, power) in exponentials {
            assert_eq!(exp(x).to_bits(), power, "{x:e}");
        }
        // x, y, x to the power of y
        #[rustfmt::skip]
        let powers: [(f64, f64, u64); 6] = [
            (10.0, 0.15, 0x3ff699c0_f7e86e10),
            (10.0, -3.7, 0x3f2a26fd_472780c1),
            (10.0, 2.0, 0x40590000_00000000),
            (2.0, 0.5, 0x3ff6a09e_667f3bcd),
            (0.3, 7.1, 0x3f2969f3_8095a047),
            (100000.0, -61.25, 0x005945de_a44a2a72),
        ];
        for (x, y, power) in powers {
            assert_eq!(pow(x, y).to_bits(), power, "{x:e} to the power of {y:e}");
        }
        assert_eq!([ln(0.0), log10(0.0), log2(0.0)], [f64::NEG_INFINITY; 3]);
        assert!(ln(-1.0).is_nan() && log10(f64::NAN).is_nan());
    }

    /// What a C library computes must not reach a report: nothing else takes its functions.
    #[test]
    fn no_other_file_takes_them_from_the_system() {
        const SYSTEM: [&str; 9] = [
            ".ln()", ".log10()", ".log2()", ".powf(", ".exp()", ".exp2()", ".cbrt()", ".ln_1p()",
            ".tanh()",
        ];
        fn walk(directory: &std::path::Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                // ggml's own arithmetic, this file, and tests in files of their own.
                if path.ends_with("codec/ggml")
                    || path.ends_with("metrics/functions.rs")
                    || path.ends_with("tests.rs")
                {
                    continue;
                }
                if path.is_dir() {
                    walk(&path, found);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                // Tests stand at the end of a file.
                let code = text.split("#[cfg(test)]").next().unwrap_or_default();
                for (number, line) in code.lines().enumerate() {
                    if SYSTEM.iter().any(|call| line.contains(call)) {
                        found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
                    }
                }
            }
        }
        let mut found = Vec::new();
        walk(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        assert!(found.is_empty(), "use metrics::functions:\n{}", found.join("\n"));
    }
}
