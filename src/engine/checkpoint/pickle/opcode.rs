//! The steps of a pickle by their names in Python's pickletools, for messages.

/// The name of a step.
pub(super) fn name(code: u8) -> String {
    let known = NAMES.iter().find(|(known, _)| *known == code).map(|(_, name)| (*name).to_owned());
    known.unwrap_or_else(|| format!("0x{code:02x}"))
}

/// Those that are refused.
const NAMES: &[(u8, &str)] = &[
    (b'I', "INT"),
    (b'L', "LONG"),
    (0x8b, "LONG4"),
    (b'S', "STRING"),
    (b'T', "BINSTRING"),
    (b'U', "SHORT_BINSTRING"),
    (b'B', "BINBYTES"),
    (b'C', "SHORT_BINBYTES"),
    (0x8e, "BINBYTES8"),
    (0x96, "BYTEARRAY8"),
    (0x97, "NEXT_BUFFER"),
    (0x98, "READONLY_BUFFER"),
    (b'V', "UNICODE"),
    (0x8d, "BINUNICODE8"),
    (b'F', "FLOAT"),
    (b'G', "BINFLOAT"),
    (b']', "EMPTY_LIST"),
    (b'a', "APPEND"),
    (b'e', "APPENDS"),
    (b'l', "LIST"),
    (b'd', "DICT"),
    (0x8f, "EMPTY_SET"),
    (0x90, "ADDITEMS"),
    (0x91, "FROZENSET"),
    (b'0', "POP"),
    (b'2', "DUP"),
    (b'1', "POP_MARK"),
    (b'g', "GET"),
    (b'p', "PUT"),
    (0x82, "EXT1"),
    (0x83, "EXT2"),
    (0x84, "EXT4"),
    (b'i', "INST"),
    (b'o', "OBJ"),
    (0x81, "NEWOBJ"),
    (0x92, "NEWOBJ_EX"),
    (b'P', "PERSID"),
];
