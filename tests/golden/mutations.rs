//! A model that is wrong in one place fails: the golden files are worth their name.

use super::{
    driver::Driver,
    files,
    judge::{TOLERANCE, Verdict, judge},
    plain_backend::PlainBackend,
};
use crate::support::plain_model::{Mutation, PlainModel};

/// How far above the tolerance a mistake must show, so that it can't be taken for rounding.
const CLEARLY: f32 = 20.0 * TOLERANCE;

fn verdict(model: &str, mutation: Mutation) -> Verdict {
    let model = files::model(model);
    let plain = PlainModel::new(&model.spec(), mutation);
    let verdict = judge(&mut Driver::new(Box::new(PlainBackend::new(plain))), &model);
    println!("{}, {mutation:?}: {verdict:?}", model.name);
    verdict
}

#[test]
fn the_plain_model_agrees_with_transformers() {
    for model in ["small", "odd", "wide", "deep", "grouped"] {
        let verdict = verdict(model, Mutation::None);
        assert!(verdict.agrees(), "{model}: {verdict:?}");
    }
}

#[test]
fn every_mistake_shows_clearly() {
    for mutation in [
        Mutation::InterleavedRope,
        Mutation::KeysTurnBackwards,
        Mutation::KeysOnePositionLate,
        Mutation::WrongTheta,
        Mutation::MaskSeesOneAhead,
        Mutation::MaskMissesItself,
        Mutation::MaskMissesTheFirst,
        Mutation::WrongEps,
        Mutation::NoEps,
        Mutation::ScaleOfHiddenSize,
        Mutation::GateAndUpSwapped,
        Mutation::Gelu,
        Mutation::OneNormForBoth,
        Mutation::NoFinalNorm,
        Mutation::TiedHead,
    ] {
        let verdict = verdict("small", mutation);
        assert!(!verdict.agrees() && verdict.largest_difference > CLEARLY, "{mutation:?}: {verdict:?}");
    }
}

#[test]
fn wrongly_grouped_heads_show_clearly() {
    let verdict = verdict("grouped", Mutation::HeadsDealtOut);
    assert!(!verdict.agrees() && verdict.largest_difference > CLEARLY, "{verdict:?}");
}
