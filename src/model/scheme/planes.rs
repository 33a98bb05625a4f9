/*!
The stored planes of a weight, and what each of them holds.
*/

use crate::codec::TensorType;
use crate::model::{Grid, GridRole, Plane};

/// What a plane holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Codes, lookup tables and whatever else is not checked.
    Codes,
    /// Scales: finite, and not all zero.
    Scale,
    /// Scales stored as E8M0 exponents, whatever the plane's type says.
    Exponent,
    /// Scales stored as E4M3 bits in bytes.
    ScaleBits,
    /// Code books of values or vectors: finite, and not all zero.
    Book,
    /// Zero points, minima: finite.
    Zero,
    /// Packed zero points of so many bits, less one, as GPTQ's first format has them.
    LessOne(u32),
    /// Group indices: not all zero if there are several groups.
    Index,
    /// Sizes and settings.
    Setting,
    /// Scales of activations: finite and positive.
    Activation,
    /// Zero points of activations: finite.
    ActivationZero,
}

/// The planes of one weight.
#[derive(Clone, Debug, Default)]
pub struct Planes {
    /// Those that the values are made of, codes first.
    pub stored: Vec<Plane>,
    roles: Vec<Role>,
    /// Scales and zero points of activations.
    pub activations: Vec<Plane>,
    activation_roles: Vec<Role>,
}

impl Planes {
    /// Counts a stored plane as part of the weight.
    pub fn add(&mut self, plane: &Plane, role: Role) {
        if matches!(role, Role::Activation | Role::ActivationZero) {
            self.activations.push(plane.clone());
            self.activation_roles.push(role);
        } else {
            self.stored.push(plane.clone());
            self.roles.push(role);
        }
    }

    /// Whether a plane of this role is among them.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Every plane with its role, those of activations last.
    pub fn all(&self) -> impl Iterator<Item = (&Plane, Role)> {
        let stored = self.stored.iter().zip(self.roles.iter().copied());
        stored.chain(self.activations.iter().zip(self.activation_roles.iter().copied()))
    }

    /// The planes of scales, zero points and code books.
    pub fn grids(&self) -> Vec<Grid> {
        let grids = self.all().filter_map(|(plane, role)| {
            let (role, ty) = match role {
                Role::Scale => (GridRole::Scale, plane.ty),
                Role::Exponent => (GridRole::Scale, TensorType::F8_E8M0),
                Role::ScaleBits => (GridRole::Scale, TensorType::F8_E4M3),
                Role::Zero => (GridRole::Zero, plane.ty),
                Role::Book => (GridRole::Book, plane.ty),
                Role::Codes
                | Role::LessOne(_)
                | Role::Index
                | Role::Setting
                | Role::Activation
                | Role::ActivationZero => return None,
            };
            Some(Grid { role, ty, at: plane.at })
        });
        grids.collect()
    }
}
