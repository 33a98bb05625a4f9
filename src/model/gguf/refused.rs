/*!
GGUF type ids that are no mainline type of today: removed ones and those of forks, by name.

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

/// Ids of `ik_llama.cpp`.
const IK_LLAMA: &[(u32, &str)] = &[
    (97, "Q8_0_X4"),
    (98, "Q8_1_X4"),
    (99, "Q8_2_X4"),
    (133, "Q6_0"),
    (134, "IQ1_BN"),
    (135, "IQ2_BN"),
    (136, "Q8_K64"),
    (137, "IQ2_K"),
    (138, "IQ3_K"),
    (139, "IQ4_K"),
    (140, "IQ5_K"),
    (141, "IQ6_K"),
    (144, "IQ4_KS"),
    (145, "IQ2_KS"),
    (146, "IQ4_KSS"),
    (147, "Q8_K16"),
    (148, "Q8_K32"),
    (149, "Q8_KR8"),
    (150, "Q8_K128"),
    (151, "Q8_KV"),
    (152, "IQ5_KS"),
    (153, "IQ2_KT"),
    (154, "IQ3_KT"),
    (155, "IQ4_KT"),
    (156, "IQ3_KS"),
    (157, "IQ2_KL"),
    (158, "IQ1_KT"),
    (202, "Q4_0_R8"),
    (206, "Q5_0_R4"),
    (208, "Q8_0_R8"),
    (210, "Q2_K_R4"),
    (211, "Q3_K_R4"),
    (212, "Q4_K_R4"),
    (213, "Q5_K_R4"),
    (214, "Q6_K_R4"),
    (216, "IQ2_XXS_R4"),
    (217, "IQ2_XS_R4"),
    (218, "IQ3_XXS_R4"),
    (219, "IQ1_S_R4"),
    (220, "IQ4_NL_R4"),
    (221, "IQ3_S_R4"),
    (222, "IQ2_S_R4"),
    (223, "IQ4_XS_R8"),
    (229, "IQ1_M_R4"),
    (230, "BF16_R16"),
    (233, "Q6_0_R4"),
    (335, "IQ2_BN_R4"),
    (337, "IQ2_K_R4"),
    (338, "IQ3_K_R4"),
    (339, "IQ4_K_R4"),
    (340, "IQ5_K_R4"),
    (344, "IQ4_KS_R4"),
    (352, "IQ5_KS_R4"),
    (398, "Q8_KV_R8"),
    (399, "Q8_K_R8"),
];

/// The row-interleaved types of `ik_llama.cpp` lie here, those without a name above too.
const IK_LLAMA_INTERLEAVED: std::ops::RangeInclusive<u32> = 200..=399;

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
    if let Some(name) = name_in(IK_LLAMA) {
        let reason = format!(
            "type id {id} ({name}) is a type of the fork ik_llama.cpp, which qualm does not read"
        );
        return (name.to_owned(), reason);
    }
    let name = format!("type {id}");
    let reason = match id {
        36 => {
            "type id 36 is I2_S in BitNet's fork of llama.cpp (and was IQ4_NL_4_4 in ggml, which \
               removed it); qualm reads neither"
                .to_owned()
        }
        _ if IK_LLAMA_INTERLEAVED.contains(&id) => format!(
            "type id {id} is in the range of ik_llama.cpp's row-interleaved types (_R4, _R8, _R16), \
             which qualm does not read"
        ),
        _ => format!(
            "type id {id} is not known; it may be newer than this qualm, or the header is damaged"
        ),
    };
    (name, reason)
}
