//! What text becomes and what files are refused.

use std::fs;

use proptest::prelude::*;
use serde_json::json;

use super::{
    fixture::{added, tokenizer, v1_json, v2_json},
    *,
};

fn refused(json: &Value) -> TokenizerError {
    ChatTokenizer::from_json(json.to_string().as_bytes()).unwrap_err()
}

#[test]
fn the_shipped_kind_of_file_is_repaired() {
    let json = v2_json();
    assert!(Tokenizer::from_bytes(json.to_string()).is_err(), "the library takes the file without repair");
    let tokenizer = tokenizer(&json);
    let ids = tokenizer.encode("what 你好").unwrap();
    assert_eq!(tokenizer.token_of(ids[0]).as_deref(), Some("w"), "a space was put before the text");
    assert_eq!(tokenizer.decode(&ids), "what 你好");
}

#[test]
fn text_comes_back_from_its_ids() {
    let tokenizer = tokenizer(&v2_json());
    for text in ["", " ", "  two  spaces ", "Human: 12, 你好。\n\n", "🙂é\u{0}\u{200d}", "<0x41>", " ▁"] {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap()), text.replace('▁', " "));
    }
}

#[test]
fn tokens_end_where_their_text_does() {
    for (json, text, ends) in [
        (v2_json(), "Human, 你好吗", vec![5, 6, 7, 13, 16]),
        (v1_json(), "Human, 你好吗", vec![5, 6, 7, 13, 16]),
        // Of another width where it is normalised.
        (v1_json(), "a＜b", vec![1, 4, 5]),
    ] {
        let tokenizer = tokenizer(&json);
        assert_eq!(tokenizer.encode_with_ends(text).unwrap(), (tokenizer.encode(text).unwrap(), ends), "{text}");
    }
    let (ids, ends) = tokenizer(&v2_json()).encode_with_ends("a🙂b").unwrap();
    assert_eq!(ids.len(), 6);
    assert!(ends.is_sorted() && ends.first() == Some(&1) && ends[4..] == [5, 6], "{ends:?}");
}

#[test]
fn nothing_is_added_cut_or_padded() {
    let tokenizer = tokenizer(&v2_json());
    assert_eq!(tokenizer.encode("abcdefgh").unwrap().len(), 8);
    assert_eq!(tokenizer.encode("").unwrap(), [0_u32; 0]);
}

#[test]
fn no_added_token_comes_out_of_its_own_text() {
    for json in [v1_json(), v2_json()] {
        let tokenizer = tokenizer(&json);
        let added = tokenizer.decoder.get_added_tokens_decoder();
        assert_eq!(added.len(), 3);
        for (id, token) in added {
            for text in [
                token.content.clone(),
                format!("a {0} b{0}{0}", token.content),
                token.content.replace('<', "＜").replace('>', "＞"),
            ] {
                let ids = tokenizer.encode(&text).unwrap();
                assert!(!ids.contains(&id) && !ids.iter().any(|&id| tokenizer.is_special(id)), "{text}: {ids:?}");
            }
            assert_eq!(tokenizer.decode(&tokenizer.encode(&token.content).unwrap()), token.content);
        }
    }
}

#[test]
fn a_control_token_that_is_not_marked_special_is_not_typed_either_but_decodes() {
    let mut json = v2_json();
    let id = json["model"]["vocab"].as_object().unwrap().len();
    json["added_tokens"].as_array_mut().unwrap().push(added(id, "<|startofthink|>", false));
    json["added_tokens"].as_array_mut().unwrap().push(added(id + 1, "▁▁▁", false));
    let tokenizer = tokenizer(&json);
    let id = id as u32;
    assert!(!tokenizer.encode("a<|startofthink|>b").unwrap().contains(&id));
    assert_eq!(tokenizer.decode(&[id]), "<|startofthink|>");
    assert!(!tokenizer.is_special(id));
    assert!(tokenizer.encode("a▁▁▁b").unwrap().contains(&(id + 1)), "an ordinary added token no longer counts");
}

#[test]
fn a_vocabulary_that_spells_a_control_token_does_not_give_it() {
    let mut json = v2_json();
    json["model"]["ignore_merges"] = json!(true);
    let tokenizer = tokenizer(&json);
    let ids = tokenizer.encode("<|endoftext|>").unwrap();
    assert!(!ids.contains(&3), "{ids:?}");
    assert_eq!(tokenizer.decode(&ids), "<|endoftext|>");
}

#[test]
fn a_character_that_is_a_control_token_is_refused() {
    let mut json = v2_json();
    let id = json["model"]["vocab"]["~"].as_u64().unwrap() as usize;
    json["added_tokens"].as_array_mut().unwrap().push(added(id, "~", true));
    let error = tokenizer(&json).encode("a~b").unwrap_err();
    assert!(matches!(&error, TokenizerError::ControlText { token } if token == "~"), "{error}");
}

#[test]
fn an_unknown_character_becomes_the_unknown_token_where_there_is_one() {
    let mut json = v1_json();
    json["added_tokens"].as_array_mut().unwrap().insert(0, added(0, "<unk>", true));
    let tokenizer = tokenizer(&json);
    assert_eq!(tokenizer.encode("🙂").unwrap(), [0]);
    assert!(!tokenizer.encode("<unk>").unwrap().contains(&0));
}

#[test]
fn the_first_kind_folds_full_width_forms() {
    let tokenizer = tokenizer(&v1_json());
    assert_eq!(tokenizer.encode("，").unwrap(), tokenizer.encode(",").unwrap());
}

#[test]
fn names_and_ids_are_found() {
    let tokenizer = tokenizer(&v2_json());
    assert_eq!(tokenizer.id_of("<|endoftext|>"), Some(3));
    assert_eq!(tokenizer.token_of(3).as_deref(), Some("<|endoftext|>"));
    assert!(tokenizer.is_special(3) && !tokenizer.is_special(4));
    let n_tokens = v2_json()["model"]["vocab"].as_object().unwrap().len();
    assert_eq!(tokenizer.vocab_size(), n_tokens);
    assert_eq!(tokenizer.token_of(n_tokens as u32), None);
    assert_eq!(tokenizer.decode(&[1, 3, n_tokens as u32]), "");
}

proptest! {
    #[test]
    fn no_text_becomes_a_control_token(
        parts in prop::collection::vec(
            prop_oneof![
                Just("<|endoftext|>"), Just("<|startoftext|>"), Just("<pad>"), Just("<"), Just("|"), Just("endoftext"),
                Just(">"), Just(" "), Just("\n"), Just("你好"), Just("＜"), Just("\u{0}"), Just("<0x03>"),
            ].prop_map(str::to_owned).boxed().prop_union(any::<String>().boxed()),
            0..12,
        )
    ) {
        let text = parts.concat();
        for json in [v1_json(), v2_json()] {
            let tokenizer = tokenizer(&json);
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert!(!ids.iter().any(|&id| (1..=3).contains(&id)), "{:?}", ids);
            prop_assert_eq!(tokenizer.decode(&ids), tokenizer.decoder.decode(&ids, true).unwrap());
        }
    }
}

#[test]
fn hostile_text_is_encoded() {
    let tokenizer = tokenizer(&v2_json());
    for unit in ["a", "^", "-", " ", "👨\u{200d}👩", "e\u{301}", "\u{202e}", "\u{0}"] {
        let text = unit.repeat(64 * 1024 / unit.len());
        assert!(tokenizer.encode(&text).unwrap().len() >= text.chars().count() / 2);
    }
}

#[test]
fn the_updated_file_is_preferred() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokenizer.json"), "broken").unwrap();
    assert!(matches!(ChatTokenizer::open(dir.path()).unwrap_err(), TokenizerError::BrokenJson { .. }));
    fs::write(dir.path().join("tokenizer.json.update"), v2_json().to_string()).unwrap();
    assert!(ChatTokenizer::open(dir.path()).is_ok());
}

#[test]
fn a_folder_without_tokenizer_names_the_flag() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [dir.path().to_owned(), dir.path().join("nowhere"), file] {
        let error = ChatTokenizer::open(&path).unwrap_err();
        assert!(matches!(error, TokenizerError::Missing { .. }), "{error}");
        assert!(error.to_string().contains("--tokenizer_path"), "{error}");
    }
}

#[test]
fn files_that_cannot_be_used_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    fs::write(&path, "").unwrap();
    assert!(matches!(ChatTokenizer::open(dir.path()).unwrap_err(), TokenizerError::Empty));
    fs::write(&path, "{\n\"model\": ").unwrap();
    let error = ChatTokenizer::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("line 2"), "{error}");
    fs::File::create(&path).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
    assert!(matches!(ChatTokenizer::open(dir.path()).unwrap_err(), TokenizerError::TooLarge { .. }));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(ChatTokenizer::open(dir.path()).unwrap_err(), TokenizerError::Unreadable { .. }));
}

#[test]
fn json_of_something_else_is_refused() {
    let mut json = v2_json();
    json["model"]["type"] = json!("Telepathy");
    assert!(matches!(refused(&json), TokenizerError::Refused { .. }));
    let mut json = v2_json();
    json["model"]["vocab"] = json!({});
    json["model"]["merges"] = json!([]);
    json["added_tokens"] = json!([]);
    assert!(matches!(refused(&json), TokenizerError::NoVocabulary));
}

#[test]
fn a_text_that_the_library_cannot_encode_is_an_error() {
    let mut json = v1_json();
    json["model"]["unk_token"] = json!("<no such token>");
    let error = tokenizer(&json).encode("🙂").unwrap_err();
    assert!(matches!(error, TokenizerError::Encode { .. }), "{error}");
}

#[test]
fn decoders_that_cannot_be_streamed_are_refused() {
    for decoder in [
        json!(null),
        json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        json!({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]}),
        json!({"type": "Strip", "content": " ", "start": 0, "stop": 1}),
        json!({"type": "Replace", "pattern": {"String": "ab"}, "content": ""}),
        json!({"type": "Replace", "pattern": {"Regex": "a"}, "content": ""}),
    ] {
        let mut json = v2_json();
        json["decoder"] = decoder;
        assert!(matches!(refused(&json), TokenizerError::Decoder { .. }), "{}", json["decoder"]);
    }
}
