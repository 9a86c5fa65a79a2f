//! Any bytes as a file of weights.
//!
//! Input: how it is to be taken, then either the file itself, or how many zeros stand behind a header and the header's text,
//! or a header in short: tensors by number, type, sizes and place.

use std::{fmt::Write, sync::LazyLock};

use safetensors::SafeTensors;

use crate::{
    choices::Choices,
    memory,
    outcome::Outcome,
    tiny_weights::{self, Folder, TENSORS},
};

static FOLDER: LazyLock<std::sync::Mutex<Folder>> = LazyLock::new(|| std::sync::Mutex::new(Folder::new()));

/// # Panics
/// Where a file is taken that the format's own library refuses, where what was taken cannot be read, or where memory is
/// taken that the file does not account for.
pub fn target(data: &[u8]) -> Outcome {
    let mut choices = Choices::new(data);
    let file = match choices.byte() % 3 {
        0 => choices.rest().to_vec(),
        1 => {
            let n_zeros = usize::from(choices.number() % 4096);
            tiny_weights::file_with(choices.rest(), n_zeros)
        }
        _ => in_short(&mut choices),
    };
    let folder = FOLDER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    folder.write("model.safetensors", &file);
    match memory::within_reason(file.len(), || folder.open()) {
        Ok(checkpoint) => {
            assert!(checkpoint.n_bytes() <= file.len() as u64);
            SafeTensors::deserialize(&file).expect("the format's own library takes the file as well");
            tiny_weights::can_be_read(checkpoint);
            Outcome::Taken
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            Outcome::Refused
        }
    }
}

/// A header that is right but for what the choices say: a byte for each tensor, more only where one is wrong.
fn in_short(choices: &mut Choices<'_>) -> Vec<u8> {
    let mut header = "{".to_owned();
    let mut end = 0_u64;
    let mut index = 0;
    while !choices.is_over() {
        let (name, shape) = TENSORS[index % TENSORS.len()];
        index += 1;
        let mut name = name.to_owned();
        let mut dtype = "F32";
        let mut shape = shape.to_vec();
        let begin = end;
        end = begin.saturating_add(4 * shape.iter().product::<usize>() as u64);
        let mut place = (begin, end);
        let choice = choices.byte();
        if choice & 1 != 0 {
            dtype = choices.of(&["F16", "BF16", "F64", "I64", "BOOL", "F4", "F8_E8M0", "U8", "junk"]);
            if matches!(dtype, "F16" | "BF16") {
                end = begin + (end - begin) / 2;
                place.1 = end;
            }
        }
        if choice & 2 != 0 {
            shape = choices.bytes(1 + usize::from(choice >> 6)).iter().map(|&size| large(size)).collect();
        }
        if choice & 4 != 0 {
            place = (large(choices.byte()) as u64, large(choices.byte()) as u64);
        }
        if choice & 8 != 0 {
            TENSORS[usize::from(choices.byte()) % TENSORS.len()].0.clone_into(&mut name);
        }
        if choice & 16 != 0 {
            name = choices.text();
        }
        let comma = if index > 1 { "," } else { "" };
        let (name, shape, place) = (serde_json::json!(name), serde_json::json!(shape), serde_json::json!(place));
        let _ = write!(header, r#"{comma}{name}:{{"dtype":"{dtype}","shape":{shape},"data_offsets":{place}}}"#);
    }
    header.push('}');
    tiny_weights::file_with(header.as_bytes(), end.min(1 << 16) as usize)
}

/// Small numbers as they are, and from 200 on powers of two.
fn large(size: u8) -> usize {
    if size < 200 { size.into() } else { 1_usize << (size - 192) }
}
