//! The steps that put values together: tuples, dictionaries, storages, tensors.
//!
//! **Architecture Invariant:** a "call" is a comparison with the shape of arguments that `torch.save` writes; no code runs.

use super::{MAX_TENSORS, Machine, Storage, Tensor, Value};
use crate::engine::checkpoint::pickle::{error::PickleProblem, global::Global};

/// The most axes that are believed.
const MAX_AXES: usize = 8;
/// The longest name of a record.
const MAX_KEY_BYTES: usize = 64;

impl Machine<'_> {
    pub(super) fn tuple(&mut self, items: Vec<Value>) -> Result<(), PickleProblem> {
        // One more for the tuple itself, so that empty ones are not free.
        self.count_values(items.len() + 1)?;
        self.tuples.push(items);
        self.push(Value::Tuple(self.tuples.len() - 1))
    }

    pub(super) fn dict(&mut self) -> Result<(), PickleProblem> {
        self.count_values(1)?;
        self.dicts.push(Vec::new());
        self.push(Value::Dict(self.dicts.len() - 1))
    }

    /// Puts keys and values, one after the other in `items`, into the dictionary below them.
    pub(super) fn set_items(&mut self, items: &[Value]) -> Result<(), PickleProblem> {
        self.count_values(items.len())?;
        let (pairs, rest) = items.as_chunks::<2>();
        let floor = self.marks.last().copied().unwrap_or(0);
        let below = if self.stack.len() > floor { self.stack.last() } else { None };
        let dict = match below {
            Some(Value::Dict(idx)) if rest.is_empty() => self.dicts.get_mut(*idx),
            _ => None,
        };
        let Some(dict) = dict else { return Err(self.broken("items that belong to no dictionary")) };
        dict.extend(pairs.iter().map(|[key, value]| (*key, *value)));
        Ok(())
    }

    /// REDUCE: a function and its arguments.
    pub(super) fn reduce(&mut self) -> Result<(), PickleProblem> {
        let pair = self.pop_many(2)?;
        let [Value::Global(global), Value::Tuple(tuple)] = pair[..] else {
            return Err(self.broken("a call of something that is no function"));
        };
        let arguments = self.tuples.get(tuple).cloned().unwrap_or_default();
        match (global, arguments.as_slice()) {
            (Global::OrderedDict, []) => self.dict(),
            (
                Global::RebuildTensor,
                &[Value::Storage(storage), Value::Int(offset), shape, stride, Value::Bool, hooks],
            ) => self.tensor(storage, offset, [shape, stride], hooks),
            (Global::RebuildParameter, &[tensor @ Value::Tensor(_), Value::Bool, hooks]) => {
                self.no_hooks(hooks)?;
                self.push(tensor)
            }
            _ => Err(self.broken("a call with other arguments than torch.save writes")),
        }
    }

    fn tensor(
        &mut self,
        storage: usize,
        offset: i64,
        [shape, stride]: [Value; 2],
        hooks: Value,
    ) -> Result<(), PickleProblem> {
        self.no_hooks(hooks)?;
        if self.tensors.len() >= MAX_TENSORS {
            return Err(PickleProblem::TooMany { what: "tensors", limit: MAX_TENSORS });
        }
        let offset = u64::try_from(offset).map_err(|_| self.broken("a tensor that begins before its storage"))?;
        let stride = self.sizes(stride)?;
        let shape = self.sizes(shape)?.into_iter().map(usize::try_from).collect::<Result<_, _>>();
        let shape = shape.map_err(|_| self.broken("a size that is larger than any memory"))?;
        self.tensors.push(Tensor { storage, offset, shape, stride });
        self.push(Value::Tensor(self.tensors.len() - 1))
    }

    fn sizes(&self, tuple: Value) -> Result<Vec<u64>, PickleProblem> {
        let items = match tuple {
            Value::Tuple(idx) => self.tuples.get(idx),
            _ => None,
        };
        let items = items.filter(|items| items.len() <= MAX_AXES);
        let sizes = items.and_then(|items| {
            let size = |item: &Value| if let Value::Int(size) = item { u64::try_from(*size).ok() } else { None };
            items.iter().map(size).collect::<Option<Vec<u64>>>()
        });
        sizes.ok_or_else(|| self.broken("a shape that is none"))
    }

    fn no_hooks(&self, hooks: Value) -> Result<(), PickleProblem> {
        match hooks {
            Value::Dict(idx) if self.dicts.get(idx).is_some_and(Vec::is_empty) => Ok(()),
            _ => Err(self.broken("a tensor with hooks")),
        }
    }

    /// BUILD: attributes of an object. `state_dict()` gives its dictionary one, `_metadata`, with versions of modules.
    pub(super) fn build(&mut self) -> Result<(), PickleProblem> {
        let attributes = self.pop_many(1)?;
        let attributes = match attributes[..] {
            [Value::Dict(idx)] => self.dicts.get(idx),
            _ => None,
        };
        let names_metadata = |key: &Value| matches!(key, Value::Text(key) if self.text_at(*key) == "_metadata");
        // More than the one would be compared again at each BUILD, of which a file may hold millions.
        let known =
            attributes.is_some_and(|items| items.len() <= 1 && items.iter().all(|(key, _)| names_metadata(key)));
        if known && matches!(self.stack.last(), Some(Value::Dict(_))) {
            Ok(())
        } else {
            Err(self.broken("attributes that torch.save does not write"))
        }
    }

    /// BINPERSID: a storage by its record.
    pub(super) fn persistent(&mut self) -> Result<(), PickleProblem> {
        let tuple = self.pop_many(1)?;
        let items = match tuple[..] {
            [Value::Tuple(idx)] => self.tuples.get(idx).cloned(),
            _ => None,
        };
        let Some(&[Value::Text(kind), Value::Global(Global::Storage(number)), Value::Text(key), Value::Text(_), size]) =
            items.as_deref()
        else {
            return Err(self.broken("a reference that is not to a storage"));
        };
        let key = self.text_at(key);
        let n_values = if let Value::Int(size) = size { u64::try_from(size).ok() } else { None };
        let (Some(n_values), "storage", true) = (n_values, self.text_at(kind), key.len() <= MAX_KEY_BYTES) else {
            return Err(self.broken("a reference that is not to a storage"));
        };
        if let Some(&idx) = self.storage_of_key.get(key) {
            let same = |storage: &Storage| (storage.number, storage.n_values) == (number, n_values);
            if !self.storages.get(idx).is_some_and(same) {
                return Err(PickleProblem::StorageClash { key: key.to_owned() });
            }
            return self.push(Value::Storage(idx));
        }
        if self.storages.len() >= MAX_TENSORS {
            return Err(PickleProblem::TooMany { what: "storages", limit: MAX_TENSORS });
        }
        let idx = self.storages.len();
        self.storages.push(Storage { key: key.to_owned(), number, n_values });
        self.storage_of_key.insert(key.to_owned(), idx);
        self.push(Value::Storage(idx))
    }
}
