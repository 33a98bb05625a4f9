/*! Operations of a recipe, done again: on another tensor, or with one of them changed. */

use serde_json::Value;

use super::{Step, View, ViewError};

impl View {
    /// Does what a step of a recipe says; `None` if it says what it does, but not how: a function, or
    /// factors along an axis.
    pub fn replay(&self, step: &Step) -> Option<Result<Self, ViewError>> {
        let argument = |name: &str| {
            step.args.iter().find(|(argument, _)| *argument == name).map(|(_, value)| value)
        };
        let count = |name: &str| argument(name).and_then(Value::as_u64);
        let counts = |name: &str| -> Option<Vec<u64>> {
            argument(name)?.as_array()?.iter().map(Value::as_u64).collect()
        };
        let value = || Some(argument("value")?.as_f64()? as f32);
        let axis = || Some(count("axis")? as usize);
        Some(match step.op {
            "reshape" => self.reshape(&counts("shape")?),
            "transpose" => {
                let axes: Vec<usize> = counts("axes")?.iter().map(|axis| *axis as usize).collect();
                self.transpose(&axes)
            }
            "slice" => {
                let range = count("start")?..count("stop")?;
                self.slice(axis()?, range, count("step").unwrap_or(1))
            }
            "select" => self.select(axis()?, count("index")?),
            "gather" => self.gather(axis()?, &counts("indices")?),
            "permute_qk" => self.permute_qk(count("n_head")?),
            "unpermute_qk" => self.unpermute_qk(count("n_head")?),
            "repeat" => self.repeat(axis()?, count("times")?),
            "add" => Ok(self.add(value()?)),
            "mul" => Ok(self.mul(value()?)),
            "div" => Ok(self.div(value()?)),
            "neg_exp" => Ok(self.neg_exp()),
            "ln_neg" => Ok(self.ln_neg()),
            "ternary_absmean" => Ok(self.ternary_absmean()),
            "div_col_l2norm" => self.div_col_l2norm(argument("eps")?.as_f64()?),
            _ => return None,
        })
    }

    /// Does all steps, as far as [`Self::replay`] can and their arguments fit.
    pub fn replay_all<'a>(&self, steps: impl IntoIterator<Item = &'a Step>) -> Option<Self> {
        steps.into_iter().try_fold(self.clone(), |view, step| view.replay(step)?.ok())
    }
}
