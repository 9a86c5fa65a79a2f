//! Upstream servers as what generates: their model is the server's, and stays so when they say something else of it.

use std::sync::Arc;

use super::{
    generator::Generator,
    state::{Ready, Server},
};
use crate::{chat::info::ModelInfo, engine::remote::RemoteEngine};

/// Makes the server ready with these upstreams, of whose model this is known, and keeps to what they say of it later.
pub fn take_in(server: &Arc<Server>, upstream: &RemoteEngine, model: ModelInfo) -> Generator {
    set_ready(server, upstream, &model);
    tokio::spawn(follow(server.clone(), upstream.clone(), model));
    Generator::Upstream(upstream.clone())
}

/// One that was started again with another context or model is asked for what it has now.
async fn follow(server: Arc<Server>, upstream: RemoteEngine, mut model: ModelInfo) {
    loop {
        model = tokio::select! {
            biased;
            _ = upstream.over() => return,
            other = upstream.other_model(&model) => other,
        };
        set_ready(&server, &upstream, &model);
    }
}

fn set_ready(server: &Server, upstream: &RemoteEngine, model: &ModelInfo) {
    server.set_ready(Ready {
        engine: Generator::Upstream(upstream.clone()),
        fingerprint: upstream.fingerprint(&model.name),
        model: model.clone(),
    });
}
