/*!
Where a tensor belongs in its model, by its name: the first part that is a number is the layer, what follows
is the role, in which further numbers (experts) stand for each other.
*/

/// Where a tensor belongs.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// What comes before the layer's number; none for tensors outside the layers.
    pub stack: Option<String>,
    /// Its layer; 0 outside the layers.
    pub layer: u64,
    /// What comes after it, or the whole name; numbers stand for each other.
    pub role: String,
}

/// Reads a tensor's place from its name.
pub fn place(name: &str) -> Place {
    let parts: Vec<&str> = name.split(['.', '/']).collect();
    let number = |part: &&str| part.len() <= 6 && part.parse::<u32>().is_ok();
    let at = parts.iter().position(number).filter(|&at| at + 1 < parts.len());
    let Some(at) = at else {
        return Place { stack: None, layer: 0, role: name.to_owned() };
    };
    let role: Vec<&str> =
        parts[at + 1..].iter().map(|part| if number(part) { "*" } else { part }).collect();
    let role = role.join(".");
    Place {
        stack: Some(parts[..at].join(".")),
        layer: parts[at].parse().unwrap_or_default(),
        role: role.strip_suffix(".weight").unwrap_or(&role).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_from_names() {
        for (name, stack, layer, role) in [
            ("blk.12.attn_q.weight", Some("blk"), 12, "attn_q"),
            ("model.layers.0.mlp.experts.7.w1.weight", Some("model.layers"), 0, "mlp.experts.*.w1"),
            ("h.3.ln_1.bias", Some("h"), 3, "ln_1.bias"),
            ("encoder/layer/2/kernel", Some("encoder.layer"), 2, "kernel"),
            ("token_embd.weight", None, 0, "token_embd.weight"),
            ("weights.3", None, 0, "weights.3"),
            ("a.99999999999999999999.b", None, 0, "a.99999999999999999999.b"),
            ("", None, 0, ""),
        ] {
            let expected = Place { stack: stack.map(str::to_owned), layer, role: role.to_owned() };
            assert_eq!(place(name), expected, "{name}");
        }
    }
}
