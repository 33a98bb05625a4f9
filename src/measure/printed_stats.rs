/*!
What `llama-quantize-stats -p` has printed, read back: the RMSE of each tensor through each type.
*/

use std::collections::BTreeMap;
use std::path::Path;

use crate::codec::TensorType;
use crate::disk;
use crate::model::ModelError;

/// Root mean square errors by tensor, of one type.
pub type PrintedStats = BTreeMap<String, f64>;

/// Reads the lines of one type.
pub fn read(path: &Path, ty: TensorType) -> Result<PrintedStats, ModelError> {
    let text = disk::read_text(path, disk::STATISTICS)
        .map_err(|error| ModelError::io(path, "read", error))?;
    parse(&text, ty).map_err(|problem| ModelError::new(path, problem))
}

/// Lines are `q4_0::blk.0.attn_q.weight   : rmse 0.00123456, maxerr …`; totals, which name no tensor,
/// and whatever else the tool prints are passed over.
fn parse(text: &str, ty: TensorType) -> Result<PrintedStats, String> {
    let label = ty.info().ggml_name.unwrap_or(ty.name());
    let mut stats = PrintedStats::new();
    for (index, line) in text.lines().enumerate() {
        let Some((name, numbers)) = line.split_once(": rmse ") else { continue };
        let Some((of, tensor)) = name.trim_end().split_once("::") else { continue };
        if !of.eq_ignore_ascii_case(label) {
            continue;
        }
        let rmse = numbers.split(',').next().unwrap_or_default().trim();
        let rmse: f64 =
            rmse.parse().map_err(|_| format!("line {}: {rmse:?} is no number", index + 1))?;
        stats.insert(tensor.to_owned(), rmse);
    }
    if stats.is_empty() {
        return Err(format!("holds no line of llama-quantize-stats -p for {label}"));
    }
    Ok(stats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_type_are_read_and_no_others() {
        let text = "# a comment\n\
            q4_0::blk.0.attn_q.weight                         : rmse 0.00123400, maxerr 0.01, 95pct<0.0002, median<0.0002\n\
            q4_1::blk.0.attn_q.weight                         : rmse 0.5, maxerr 0.01, 95pct<0.0002, median<0.0002\n\
            q4_0::a::b: rmse nan, maxerr 0\n\
            q4_0                                              : rmse 0.7, maxerr 0\n\
            testing tensor\n";
        let stats = parse(text, TensorType::Q4_0).unwrap();
        let names: Vec<&str> = stats.keys().map(String::as_str).collect();
        assert_eq!(names, ["a::b", "blk.0.attn_q.weight"]);
        assert_eq!(stats["blk.0.attn_q.weight"], 0.001234);
        assert!(stats["a::b"].is_nan(), "a NaN is kept: it agrees with nothing");
        for (text, expected) in [
            ("", "no line of llama-quantize-stats -p for q6_K"),
            ("q4_0::a : rmse 1, maxerr 1", "no line"),
            ("\nq6_K::a : rmse x, maxerr 1", "line 2: \"x\" is no number"),
        ] {
            let error = parse(text, TensorType::Q6_K).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
