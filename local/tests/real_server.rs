//! The embedded API server beside a real one: the same calls to both, the answers compared field by field.
//!
//! The real server is found as the ecosystem does: `KUBEBUILDER_ASSETS` names a folder with `kube-apiserver` and `etcd`,
//! else `KUBECONFIG` names a server (a throw-away one: the calls make and delete things in a namespace of their own).
//! `.ci/run` builds the assets. What may differ is listed in [`real_server::known`], each with its reason; a difference
//! that is not listed fails the test, and so does one that is listed and does not occur.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // clippy takes fixtures of tests for production code

mod real_server {
    mod cluster;
    mod compare;
    mod known;
    mod script;

    use std::sync::Arc;

    use local::apiserver::{AdmitAll, ApiServer, Config};
    use tempfile::TempDir;
    use tokio_util::sync::CancellationToken;

    use cluster::Cluster;
    use script::Caller;

    #[tokio::test(flavor = "multi_thread")]
    async fn both_servers_answer_the_same() {
        let folder = TempDir::new().unwrap();
        let ours = ApiServer::bind(Config::new(folder.path().join("data"), Arc::new(AdmitAll))).await.unwrap();
        let url = format!("http://{}", ours.local_addr());
        let stop = CancellationToken::new();
        let embedded = tokio::spawn(ours.run(stop.clone()));
        let config = kube::Config::new(url.parse().unwrap());
        let ours = script::run(Caller::new(kube::Client::try_from(config).unwrap())).await;
        stop.cancel();
        embedded.await.unwrap().unwrap();

        let real = Cluster::find().await;
        let client = real.client();
        cluster::install_crds(&client).await;
        let theirs = script::run(Caller::new(client)).await;
        drop(real);

        let mut known = known::differences();
        let mut new = Vec::new();
        for difference in compare::records(&theirs, &ours) {
            match known.iter_mut().find(|known| known.covers(&difference)) {
                Some(known) => known.seen = true,
                None => new.push(difference.to_string()),
            }
        }
        let unused: Vec<_> = known.iter().filter(|known| !known.seen).map(ToString::to_string).collect();
        assert!(new.is_empty(), "{} differences that are not listed:\n{}", new.len(), new.join("\n"));
        assert!(unused.is_empty(), "listed and not there any more:\n{}", unused.join("\n"));
    }
}
