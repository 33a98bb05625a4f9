/*!
GGUF type ids that no file should have: removed types and those of programs' memory, by name.

Only names and reasons; the types that qualm reads are rows of the table in `codec/`.
*/

/// Ids that ggml had and removed, with the name that they had.
const REMOVED: &[(u32, &str)] = &[
    (4, "Q4_2"),
    (5, "Q4_3"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (37, "IQ4_NL_4_8"),
    (38, "IQ4_NL_8_8"),
];

/// Ids of `ik_llama.cpp` that its programs use in memory, for activations, and that no file has.
const IN_MEMORY: &[(u32, &str)] = &[
    (97, "Q8_0_X4"),
    (98, "Q8_1_X4"),
    (99, "Q8_2_X4"),
    (136, "Q8_K64"),
    (147, "Q8_K16"),
    (148, "Q8_K32"),
    (149, "Q8_KR8"),
    (150, "Q8_K128"),
];

/// Ids that `ik_llama.cpp` had in 2024 and removed.
const REMOVED_BY_IK: &[(u32, &str)] = &[(142, "IQ2_TN"), (143, "IQ1_TN"), (342, "IQ2_TN_R4")];

/// The row-interleaved types of `ik_llama.cpp` lie here.
const INTERLEAVED: std::ops::RangeInclusive<u32> = 200..=399;

/// Why a type id that the table does not hold cannot be read: its name and the reason.
pub fn explain(id: u32) -> (String, String) {
    let name_in =
        |list: &'static [(u32, &'static str)]| list.iter().find(|row| row.0 == id).map(|row| row.1);
    if let Some(name) = name_in(REMOVED) {
        let reason = format!(
            "type id {id} ({name}) was removed from ggml; quantize the model again with a current \
             llama.cpp"
        );
        return (name.to_owned(), reason);
    }
    if let Some(name) = name_in(IN_MEMORY) {
        let reason = format!(
            "type id {id} ({name}) is one that ik_llama.cpp uses for activations in memory; no file \
             should have it"
        );
        return (name.to_owned(), reason);
    }
    if let Some(name) = name_in(REMOVED_BY_IK) {
        let reason = format!(
            "type id {id} ({name}) was removed from ik_llama.cpp; quantize the model again (IQ2_BN and \
             IQ1_BN took its place)"
        );
        return (name.to_owned(), reason);
    }
    let reason = if INTERLEAVED.contains(&id) {
        format!(
            "type id {id} is in the range of ik_llama.cpp's row-interleaved types (_R4, _R8, _R16), \
             but none that this qualm knows"
        )
    } else {
        format!(
            "type id {id} is not known; it may be newer than this qualm, or the header is damaged"
        )
    };
    (format!("type {id}"), reason)
}
