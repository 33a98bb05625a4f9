/*!
What a scheme is matched against: the planes of one base name, and what is known besides.
*/

use std::sync::Arc;

use super::config::Config;
use super::joined::Joined;
use super::laid::Laid;
use super::planes::Planes;
use crate::codec::TensorType;
use crate::model::{Plane, PlaneFault, PlaneFinding, ReadError, SourceFile, Weight};

/// Longest plane that is read when a model is opened: settings, scalars, lookup tables.
const LONGEST_SETTING: u64 = 64 * 1024;

/// Suffixes that hang on the weight's own name (fused experts have no `.weight`), and what they
/// stand for. Only where a tensor of that name exists, or packed codes of it. Longer ones come before
/// what they end with.
pub const BARE: &[(&str, &str)] = &[
    ("_weight_scale_inv", ".weight_scale_inv"),
    ("_weight_scale_2", ".weight_scale_2"),
    ("_weight_scale", ".weight_scale"),
    ("_weight_zero_point", ".weight_zero_point"),
    ("_weight_global_scale", ".weight_global_scale"),
    ("_pre_quant_scale", ".pre_quant_scale"),
    ("_weight_packed", ".weight_packed"),
    ("_weight_shape", ".weight_shape"),
    ("_weight_g_idx", ".weight_g_idx"),
    ("_packed", ".weight_packed"),
    ("_shape", ".weight_shape"),
    ("_zero_point", ".weight_zero_point"),
    ("_g_idx", ".weight_g_idx"),
    ("_input_global_scale", ".input_global_scale"),
    ("_global_scale", ".weight_global_scale"),
    ("_scale_inv", ".weight_scale_inv"),
    ("_scale_2", ".weight_scale_2"),
    ("_input_scale", ".input_scale"),
    ("_scale", ".weight_scale"),
    (".absmax", ".weight.absmax"),
    (".quant_map", ".weight.quant_map"),
    (".nested_absmax", ".weight.nested_absmax"),
    (".nested_quant_map", ".weight.nested_quant_map"),
    (".quant_state.bitsandbytes__nf4", ".weight.quant_state.bitsandbytes__nf4"),
    (".quant_state.bitsandbytes__fp4", ".weight.quant_state.bitsandbytes__fp4"),
];

/// The stored planes of one base name, by their suffixes as the table spells them.
#[derive(Debug, Default)]
pub struct Group {
    /// The planes' common name without suffix: `model.layers.0.mlp.down_proj`.
    pub base: String,
    /// The suffixes hang on the weight's own name, as `experts.down_proj_scale_inv` does.
    pub bare: bool,
    /// Suffix and plane, in order of the planes' names.
    pub planes: Vec<(&'static str, Plane)>,
}

/// What a scheme may look at besides the planes.
pub struct Context<'a> {
    /// The model's files.
    pub files: &'a [SourceFile],
    /// The configuration beside them.
    pub config: &'a Config,
}

/// A weight that was put together.
#[derive(Debug)]
pub struct Found {
    /// Shape of the logical weight.
    pub shape: Vec<u64>,
    /// The weight.
    pub weight: Built,
    /// Faults that do not stand in the way of decoding.
    pub findings: Vec<PlaneFinding>,
    /// What is odd.
    pub notes: Vec<String>,
    /// What the planes leave open, and how it was taken.
    pub guesses: Vec<String>,
}

/// What the planes of a weight were put together to.
#[derive(Debug)]
pub enum Built {
    /// Codes and grids.
    Joined(Box<Joined>),
    /// A layout of its own.
    Laid(Laid),
}

impl From<Joined> for Built {
    fn from(weight: Joined) -> Self {
        Self::Joined(Box::new(weight))
    }
}

impl From<Laid> for Built {
    fn from(weight: Laid) -> Self {
        Self::Laid(weight)
    }
}

impl Built {
    /// The stored planes.
    pub fn parts(&mut self) -> &mut Planes {
        match self {
            Self::Joined(weight) => &mut weight.parts,
            Self::Laid(weight) => &mut weight.parts,
        }
    }

    /// The weight, if it is made of codes and grids.
    pub fn joined(&mut self) -> Option<&mut Joined> {
        match self {
            Self::Joined(weight) => Some(weight),
            Self::Laid(_) => None,
        }
    }

    /// The weight, as the model holds it.
    pub fn finish(self) -> Arc<dyn Weight> {
        match self {
            Self::Joined(weight) => Arc::from(weight as Box<dyn Weight>),
            Self::Laid(weight) => Arc::new(weight),
        }
    }
}

impl Found {
    /// A weight without faults.
    pub fn new(shape: Vec<u64>, weight: impl Into<Built>) -> Self {
        let weight = weight.into();
        Self { shape, weight, findings: Vec::new(), notes: Vec::new(), guesses: Vec::new() }
    }
}

/// Why a scheme's planes make no weight.
#[derive(Debug)]
pub enum Trouble {
    /// A plane is missing or does not fit.
    Fault {
        /// The scheme.
        scheme: String,
        /// The plane.
        plane: String,
        /// The kind of fault.
        fault: PlaneFault,
        /// A fragment that reads after the plane's name.
        message: String,
    },
    /// The scheme is known but not decoded; says what to do.
    Refused {
        /// The scheme.
        scheme: String,
        /// Why, and what to do.
        reason: String,
    },
    /// A plane cannot be read.
    Read(ReadError),
}

impl From<ReadError> for Trouble {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// `Ok(None)`: the planes are not this scheme's.
pub type Match = Result<Option<Found>, Trouble>;

impl Group {
    /// The plane with a suffix.
    pub fn get(&self, suffix: &str) -> Option<&Plane> {
        self.planes.iter().find(|(s, _)| *s == suffix).map(|(_, plane)| plane)
    }

    /// The name that a plane with a suffix has, or would have.
    pub fn plane_name(&self, suffix: &str) -> String {
        let bare = BARE.iter().rev().find(|(_, of_weight)| self.bare && *of_weight == suffix);
        format!("{}{}", self.base, bare.map_or(suffix, |(ending, _)| ending))
    }

    /// Whether there is a plane with a suffix.
    pub fn has(&self, suffix: &str) -> bool {
        self.get(suffix).is_some()
    }

    /// The plane with a suffix, without which a weight of `scheme` cannot be decoded.
    pub fn need(&self, scheme: &str, suffix: &str) -> Result<&Plane, Trouble> {
        self.get(suffix).ok_or_else(|| Trouble::Fault {
            scheme: scheme.to_owned(),
            plane: self.plane_name(suffix),
            fault: PlaneFault::Missing,
            message: format!("is missing; {scheme} weights cannot be decoded without it"),
        })
    }

    /// A fault of a plane, by its suffix.
    pub fn fault(&self, scheme: &str, suffix: &str, message: impl Into<String>) -> Trouble {
        Trouble::Fault {
            scheme: scheme.to_owned(),
            plane: self
                .get(suffix)
                .map_or_else(|| self.plane_name(suffix), |plane| plane.name.clone()),
            fault: PlaneFault::Shape,
            message: message.into(),
        }
    }
}

impl Context<'_> {
    /// The bytes of a small plane.
    pub fn bytes(&self, plane: &Plane) -> Result<Vec<u8>, Trouble> {
        if plane.at.len > LONGEST_SETTING {
            return Err(Trouble::Read(ReadError::Corrupt(format!(
                "{:?} has {} bytes, too many for a setting",
                plane.name, plane.at.len
            ))));
        }
        let mut bytes = vec![0; plane.at.len as usize];
        self.files[plane.at.file].read_at(plane.at.offset, &mut bytes)?;
        Ok(bytes)
    }

    /// The values of a small plane of floats or integers.
    pub fn numbers(&self, plane: &Plane) -> Result<Vec<f32>, Trouble> {
        let bytes = self.bytes(plane)?;
        let row = plane.ty.info();
        if let Some(decode) = row.decode {
            let mut values = vec![0.0; bytes.len() / row.block_bytes * row.block_len];
            decode(&bytes, &mut values);
            return Ok(values);
        }
        Ok(self.integers(plane)?.into_iter().map(|value| value as f32).collect())
    }

    /// The values of a small plane of integers.
    pub fn integers(&self, plane: &Plane) -> Result<Vec<i64>, Trouble> {
        use TensorType::{BOOL, I8, I16, I32, I64, U8, U16, U32, U64};
        let signed = match plane.ty {
            I8 | I16 | I32 | I64 => true,
            BOOL | U8 | U16 | U32 | U64 => false,
            other => {
                return Err(Trouble::Read(ReadError::Corrupt(format!(
                    "{:?} is {other}, not integers",
                    plane.name
                ))));
            }
        };
        let width = plane.ty.info().block_bytes;
        let bytes = self.bytes(plane)?;
        Ok(bytes.chunks_exact(width).map(|b| super::grid::little_endian(b, signed)).collect())
    }

    /// A small plane of text.
    pub fn text(&self, plane: &Plane) -> Result<String, Trouble> {
        Ok(String::from_utf8_lossy(&self.bytes(plane)?).into_owned())
    }
}

/// A name with every number replaced, so that layers and experts look alike.
pub fn pattern(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len());
    for part in name.split('.') {
        let number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        pattern.push_str(if number { "#" } else { part });
        pattern.push('.');
    }
    pattern
}
