//! Follows a pickle that builds a dictionary of tensors, and no other.
//!
//! Values live in tables and refer to each other by index, so neither depth nor sharing in a hostile file costs stack or time.
//! **Architecture Invariant:** every step but those that `torch.save` writes for a dictionary of tensors is an error, and so
//! is every name that is not in [`Global`].

mod build;
mod input;

use std::collections::{HashMap, HashSet};

use self::input::Input;
use super::{
    error::PickleProblem,
    global::{Global, Number},
    opcode,
};

const MAX_STACK: usize = 1 << 16;
const MAX_MEMO: usize = 1 << 20;
const MAX_TENSORS: usize = 1 << 16;
/// Of all tuples and dictionaries together.
const MAX_VALUES: usize = 1 << 22;

/// A tensor as the pickle describes it; nothing of it has been compared with the archive.
#[derive(Debug)]
pub(super) struct TensorClaim {
    pub(super) name: String,
    pub(super) storage: Storage,
    /// First number in the storage.
    pub(super) offset: u64,
    pub(super) shape: Vec<usize>,
    pub(super) stride: Vec<u64>,
}

/// Where a tensor's numbers are.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    /// The name of its record under `data/`.
    pub(super) key: String,
    pub(super) number: Number,
    pub(super) n_values: u64,
}

/// The tensors of the dictionary that `pickle` builds, in its order.
pub(super) fn run(pickle: &[u8]) -> Result<Vec<TensorClaim>, PickleProblem> {
    let mut machine = Machine { input: Input::new(pickle), ..Machine::default() };
    let root = loop {
        if let Some(root) = machine.step()? {
            break root;
        }
    };
    machine.tensors_of(root)
}

/// What a step leaves on the stack; a number refers to a table of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    None,
    Bool,
    Int(i64),
    Text(usize),
    Global(Global),
    Tuple(usize),
    Dict(usize),
    Storage(usize),
    Tensor(usize),
}

impl Value {
    fn kind(self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::Bool => "a truth value",
            Self::Int(_) => "a number",
            Self::Text(_) => "a text",
            Self::Global(_) => "a class or function",
            Self::Tuple(_) => "a tuple",
            Self::Dict(_) => "a dictionary",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}

#[derive(Debug)]
struct Tensor {
    storage: usize,
    offset: u64,
    shape: Vec<usize>,
    stride: Vec<u64>,
}

#[derive(Default)]
struct Machine<'p> {
    input: Input<'p>,
    stack: Vec<Value>,
    /// Heights of the stack where a tuple or a list of items begins.
    marks: Vec<usize>,
    /// Picklers number what they remember without gaps.
    memo: Vec<Value>,
    texts: Vec<&'p str>,
    tuples: Vec<Vec<Value>>,
    dicts: Vec<Vec<(Value, Value)>>,
    storages: Vec<Storage>,
    storage_of_key: HashMap<String, usize>,
    tensors: Vec<Tensor>,
    n_values: usize,
}

impl<'p> Machine<'p> {
    /// Takes one step; what the whole pickle is, at its end.
    fn step(&mut self) -> Result<Option<Value>, PickleProblem> {
        let code = self.input.byte()?;
        match code {
            // PROTO, FRAME, STOP.
            0x80 => match self.input.byte()? {
                2..=5 => {}
                _ => return Err(self.broken("a protocol that PyTorch does not use")),
            },
            0x95 => drop(self.input.take(8)?),
            b'.' => return self.stop().map(Some),
            // NONE, NEWTRUE, NEWFALSE.
            b'N' => self.push(Value::None)?,
            0x88 | 0x89 => self.push(Value::Bool)?,
            b'K' | b'M' | b'J' | 0x8a => self.integer(code)?,
            b'X' | 0x8c => self.text(code)?,
            // MARK, EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3, TUPLE.
            b'(' => self.mark()?,
            b')' => self.tuple(Vec::new())?,
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(code - 0x84))?;
                self.tuple(items)?;
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.tuple(items)?;
            }
            // EMPTY_DICT, SETITEM, SETITEMS.
            b'}' => self.dict()?,
            b's' => {
                let items = self.pop_many(2)?;
                self.set_items(&items)?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.remember(code)?,
            // GLOBAL, STACK_GLOBAL, REDUCE, BUILD, BINPERSID.
            b'c' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                self.global(module, name)?;
            }
            0x93 => {
                let items = self.pop_many(2)?;
                let [Value::Text(module), Value::Text(name)] = items[..] else {
                    return Err(self.broken("a name that is not a text"));
                };
                let (module, name) = (self.text_at(module), self.text_at(name));
                self.global(module, name)?;
            }
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            b'Q' => self.persistent()?,
            other => return Err(PickleProblem::Opcode { name: opcode::name(other), at: self.input.last() }),
        }
        Ok(None)
    }

    fn stop(&mut self) -> Result<Value, PickleProblem> {
        match (self.stack.as_slice(), self.marks.is_empty()) {
            ([root], true) => Ok(*root),
            _ => Err(self.broken("it ends with something half-built")),
        }
    }

    /// BININT1, BININT2, BININT, LONG1.
    fn integer(&mut self, code: u8) -> Result<(), PickleProblem> {
        let value = match code {
            b'K' => i64::from(self.input.byte()?),
            b'M' => i64::from(u16::from_le_bytes(self.input.array()?)),
            b'J' => i64::from(i32::from_le_bytes(self.input.array()?)),
            _ => {
                let n_bytes = usize::from(self.input.byte()?);
                let bytes = self.input.take(n_bytes)?;
                input::signed(bytes).ok_or_else(|| self.broken("a number of more than 64 bits"))?
            }
        };
        self.push(Value::Int(value))
    }

    /// BINUNICODE, `SHORT_BINUNICODE`.
    fn text(&mut self, code: u8) -> Result<(), PickleProblem> {
        let n_bytes = match code {
            b'X' => u32::from_le_bytes(self.input.array()?) as usize,
            _ => usize::from(self.input.byte()?),
        };
        let bytes = self.input.take(n_bytes)?;
        let text = str::from_utf8(bytes).map_err(|_| self.broken("a text that is not UTF-8"))?;
        self.count_values(1)?;
        self.texts.push(text);
        self.push(Value::Text(self.texts.len() - 1))
    }

    /// BINPUT, `LONG_BINPUT`, MEMOIZE, BINGET, `LONG_BINGET`.
    fn remember(&mut self, code: u8) -> Result<(), PickleProblem> {
        let idx = match code {
            b'q' | b'h' => usize::from(self.input.byte()?),
            b'r' | b'j' => u32::from_le_bytes(self.input.array()?) as usize,
            _ => self.memo.len(),
        };
        if matches!(code, b'h' | b'j') {
            let value = *self.memo.get(idx).ok_or_else(|| self.broken("it refers to something it has not built"))?;
            return self.push(value);
        }
        let value = *self.stack.last().ok_or_else(|| self.broken("it remembers nothing"))?;
        if let Some(remembered) = self.memo.get_mut(idx) {
            *remembered = value;
        } else if idx != self.memo.len() {
            return Err(self.broken("it leaves gaps in what it remembers"));
        } else if idx >= MAX_MEMO {
            return Err(PickleProblem::TooMany { what: "things to remember", limit: MAX_MEMO });
        } else {
            self.memo.push(value);
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), PickleProblem> {
        match Global::find(module, name) {
            Some(global) => self.push(Value::Global(global)),
            None => Err(PickleProblem::Global { name: input::printable(module, name) }),
        }
    }

    fn push(&mut self, value: Value) -> Result<(), PickleProblem> {
        if self.stack.len() >= MAX_STACK {
            return Err(PickleProblem::TooMany { what: "things at once", limit: MAX_STACK });
        }
        self.stack.push(value);
        Ok(())
    }

    fn mark(&mut self) -> Result<(), PickleProblem> {
        if self.marks.len() >= MAX_STACK {
            return Err(PickleProblem::TooMany { what: "things in each other", limit: MAX_STACK });
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    /// The last `n` values, which must not reach below the last mark.
    fn pop_many(&mut self, n: usize) -> Result<Vec<Value>, PickleProblem> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(n) {
            Some(start) if start >= floor => Ok(self.stack.split_off(start)),
            _ => Err(self.broken("a step needs more than there is")),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, PickleProblem> {
        let start = self.marks.pop().ok_or_else(|| self.broken("something ends that has not begun"))?;
        Ok(self.stack.split_off(start))
    }

    fn count_values(&mut self, n: usize) -> Result<(), PickleProblem> {
        self.n_values += n;
        if self.n_values > MAX_VALUES {
            return Err(PickleProblem::TooMany { what: "values", limit: MAX_VALUES });
        }
        Ok(())
    }

    fn text_at(&self, idx: usize) -> &'p str {
        self.texts.get(idx).copied().unwrap_or_default()
    }

    fn broken(&self, what: &'static str) -> PickleProblem {
        PickleProblem::Broken { at: self.input.last(), what }
    }

    /// The tensors of the dictionary `root`.
    fn tensors_of(mut self, root: Value) -> Result<Vec<TensorClaim>, PickleProblem> {
        let Value::Dict(dict) = root else { return Err(PickleProblem::NotADictionary { found: root.kind() }) };
        let items = self.dicts.get_mut(dict).map(std::mem::take).unwrap_or_default();
        let mut names = HashSet::new();
        let mut claims = Vec::new();
        for (key, value) in items {
            let Value::Text(key) = key else {
                return Err(PickleProblem::NotADictionary { found: "one without names" });
            };
            let name = self.text_at(key).to_owned();
            let tensor = match value {
                Value::Tensor(idx) => self.tensors.get(idx),
                _ => None,
            };
            let Some(tensor) = tensor else { return Err(PickleProblem::NotATensor { name, found: value.kind() }) };
            let Some(storage) = self.storages.get(tensor.storage) else { continue };
            if !names.insert(name.clone()) {
                return Err(PickleProblem::Duplicate { name });
            }
            let (shape, stride) = (tensor.shape.clone(), tensor.stride.clone());
            claims.push(TensorClaim { name, storage: storage.clone(), offset: tensor.offset, shape, stride });
        }
        Ok(claims)
    }
}
