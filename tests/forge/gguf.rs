/*! A small GGUF writer. */

/// Type ids of values and tensors that the tests use.
pub mod id {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;

    pub const TENSOR_F32: u32 = 0;
    pub const TENSOR_F16: u32 = 1;
    pub const TENSOR_Q4_0: u32 = 2;
    pub const TENSOR_Q8_0: u32 = 8;
    pub const TENSOR_Q4_K: u32 = 12;
    pub const TENSOR_NVFP4: u32 = 40;
}

/// A file to be: what is public may be set to something untrue.
#[derive(Clone)]
pub struct Gguf {
    pub magic: [u8; 4],
    pub version: u32,
    /// Counts to claim instead of the true ones.
    pub tensor_count: Option<u64>,
    pub entry_count: Option<u64>,
    /// Alignment that is written by; the key is not added.
    pub alignment: usize,
    entries: Vec<Vec<u8>>,
    tensors: Vec<Info>,
}

#[derive(Clone)]
struct Info {
    name: Vec<u8>,
    /// Fastest first, as stored.
    extents: Vec<u64>,
    rank: u32,
    ty: u32,
    offset: Option<u64>,
    data: Vec<u8>,
}

/// A length and the bytes.
pub fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [&(text.len() as u64).to_le_bytes()[..], text].concat()
}

/// An array's element type, its claimed length, and the elements' bytes.
pub fn array(of: u32, len: u64, elements: &[u8]) -> Vec<u8> {
    [&of.to_le_bytes()[..], &len.to_le_bytes(), elements].concat()
}

/// Little-endian bytes of floats.
pub fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

impl Gguf {
    pub fn new() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            tensor_count: None,
            entry_count: None,
            alignment: 32,
            entries: Vec::new(),
            tensors: Vec::new(),
        }
    }

    /// Adds a key with a value's stored bytes.
    pub fn entry(mut self, key: impl AsRef<[u8]>, ty: u32, value: &[u8]) -> Self {
        self.entries.push([&string(key)[..], &ty.to_le_bytes(), value].concat());
        self
    }

    pub fn text(self, key: &str, text: &str) -> Self {
        self.entry(key, id::STRING, &string(text))
    }

    pub fn u32(self, key: &str, value: u32) -> Self {
        self.entry(key, id::U32, &value.to_le_bytes())
    }

    pub fn u16(self, key: &str, value: u16) -> Self {
        self.entry(key, id::U16, &value.to_le_bytes())
    }

    /// Adds a tensor; `shape` is outermost first.
    pub fn tensor(mut self, name: impl AsRef<[u8]>, shape: &[u64], ty: u32, data: Vec<u8>) -> Self {
        self.tensors.push(Info {
            name: name.as_ref().to_vec(),
            extents: shape.iter().rev().copied().collect(),
            rank: shape.len() as u32,
            ty,
            offset: None,
            data,
        });
        self
    }

    /// Adds an F32 tensor.
    pub fn f32(self, name: &str, shape: &[u64], values: &[f32]) -> Self {
        self.tensor(name, shape, id::TENSOR_F32, f32s(values))
    }

    /// Claims another offset for the tensor added last.
    pub fn offset(mut self, offset: u64) -> Self {
        self.tensors.last_mut().expect("a tensor").offset = Some(offset);
        self
    }

    /// Claims another rank for the tensor added last.
    pub fn rank(mut self, rank: u32) -> Self {
        self.tensors.last_mut().expect("a tensor").rank = rank;
        self
    }

    /// The file, without padding after its last tensor.
    pub fn bytes(&self) -> Vec<u8> {
        let mut file = self.magic.to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        file.extend(self.entry_count.unwrap_or(self.entries.len() as u64).to_le_bytes());
        file.extend(self.entries.concat());
        let mut data: Vec<u8> = Vec::new();
        for info in &self.tensors {
            data.resize(data.len().next_multiple_of(self.alignment), 0);
            file.extend(string(&info.name));
            file.extend(info.rank.to_le_bytes());
            file.extend(info.extents.iter().flat_map(|extent| extent.to_le_bytes()));
            file.extend(info.ty.to_le_bytes());
            file.extend(info.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&info.data);
        }
        if !self.tensors.is_empty() {
            file.resize(file.len().next_multiple_of(self.alignment), 0);
        }
        [file, data].concat()
    }
}
