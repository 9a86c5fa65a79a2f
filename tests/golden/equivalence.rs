//! However a prompt is read, the same comes of it: in one piece, in chunks, after a prefix hit, token by token.

use xverse_chat::engine::{load::DeviceChoice, request::TokenLogprobs};

use super::{
    driver::Driver,
    files::{self, GoldenModel},
    judge::difference,
    logits::loaded,
};

/// Largest difference of a log-probability between two ways of reading a prompt. The `cpu` backend sums in one order, whatever
/// comes together; candle's products, on which `reference` stands, pick their order by shape.
fn tolerance(device: DeviceChoice) -> f32 {
    if device == DeviceChoice::Cpu { 0.0 } else { 1e-5 }
}

const N_TOKENS: usize = 64;

/// Log-probabilities by token id.
fn by_id(drawn: &TokenLogprobs) -> Vec<f32> {
    let mut row = vec![f32::NAN; drawn.top.len()];
    for (token, logprob) in &drawn.top {
        row[*token as usize] = *logprob;
    }
    row
}

fn assert_same(device: DeviceChoice, what: &str, expected: &[TokenLogprobs], found: &[TokenLogprobs]) {
    let tokens = |answer: &[TokenLogprobs]| answer.iter().map(|drawn| drawn.token).collect::<Vec<_>>();
    assert_eq!(tokens(expected), tokens(found), "{device:?}, {what}");
    let largest = expected.iter().zip(found).map(|(a, b)| difference(&by_id(a), &by_id(b))).fold(0.0, f32::max);
    assert!(largest <= tolerance(device), "{device:?}, {what}: log-probabilities differ by {largest:e}");
}

fn check_pieces(driver: &mut Driver, model: &GoldenModel, device: DeviceChoice) {
    for case in &model.cases {
        let mut whole = driver.begin(&case.prompt);
        let expected = driver.answer(&mut whole, usize::MAX, N_TOKENS);
        driver.end(whole);
        for piece in [1, 7, 16] {
            let mut sequence = driver.begin(&case.prompt);
            let found = driver.answer(&mut sequence, piece, N_TOKENS);
            assert_same(device, &format!("{}, pieces of {piece}", case.name), &expected, &found);
            driver.end(sequence);
        }
    }
}

/// A later turn, whose prompt begins with an earlier prompt and its answer, equals the same prompt read alone; so does one
/// that goes another way in the middle of a block.
fn check_prefix_hits(driver: &mut Driver, model: &GoldenModel, device: DeviceChoice) {
    for case in model.cases.iter().filter(|case| [17, 128].contains(&case.prompt.len())) {
        let mut earlier = driver.begin(&case.prompt);
        driver.answer(&mut earlier, usize::MAX, N_TOKENS);
        let next_turn = [earlier.ids.as_slice(), &case.prompt[..15]].concat();
        let other_way = [&earlier.ids[..earlier.ids.len() - 21], &case.prompt[..9]].concat();
        let the_same = case.prompt.clone();
        for (what, ids) in [("next turn", next_turn), ("other way", other_way), ("the same again", the_same)] {
            let mut alone = driver.begin(&ids);
            let expected = driver.answer(&mut alone, usize::MAX, N_TOKENS);
            driver.end(alone);
            let mut after_hit = driver.begin_after(&earlier, &ids);
            let found = driver.answer(&mut after_hit, usize::MAX, N_TOKENS);
            assert_same(device, &format!("{}, {what} after a prefix hit", case.name), &expected, &found);
            driver.end_but_keep(after_hit, &earlier);
        }
        driver.end(earlier);
    }
}

fn check(device: DeviceChoice, models: &[&str]) {
    for name in models {
        let model = files::model(name);
        let mut driver = Driver::new(loaded(&model, device).backend);
        check_pieces(&mut driver, &model, device);
        check_prefix_hits(&mut driver, &model, device);
    }
}

#[test]
fn the_cpu_backend_reads_prompts_in_any_pieces_alike() {
    check(DeviceChoice::Cpu, &["small", "odd", "wide", "deep", "grouped"]);
}

#[test]
fn the_reference_backend_reads_prompts_in_any_pieces_alike() {
    check(DeviceChoice::Reference, &["odd", "wide", "grouped"]);
}
