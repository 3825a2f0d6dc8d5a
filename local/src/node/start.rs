//! Turns a container of the spec into a process: image → program, environment, folder, log.

use std::{collections::BTreeMap, path::Path};

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};
use kube::{Api, Client};

use super::{
    Shared,
    env::{self, Place, References, Source},
    images,
    machine::SpawnFailure,
    plan::Role,
};
use crate::{
    keeper::{Command, Error, Process},
    logs,
};

/// Variables of `up` that a container starts with, in the place of those that an image would bring.
const INHERITED: [&str; 7] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// Starts one instance of a container.
pub(super) async fn start(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    role: Role,
    place: &Place,
    restart: u32,
) -> Result<(Process, Command), SpawnFailure> {
    let command = command(shared, pod, container, role, place, restart).await?;
    match shared.keeper.spawn(command.clone()).await {
        Ok(process) => Ok((process, command)),
        Err(Error::Spawn(message)) => {
            let program = command.argv.first().cloned().unwrap_or_default();
            Err(SpawnFailure::Exec {
                message: format!("failed to start the container's process: exec: \"{program}\": {message}"),
            })
        }
        Err(error @ Error::KeeperGone) => Err(SpawnFailure::Exec { message: error.to_string() }),
    }
}

async fn command(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    role: Role,
    place: &Place,
    restart: u32,
) -> Result<Command, SpawnFailure> {
    let config = |message: String| SpawnFailure::Config { message };
    if role != Role::QueueProxy {
        mounts(pod, container).map_err(config)?;
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let values = read(&shared.client, namespace, env::references(container)).await.map_err(config)?;
    let mut env: Vec<(String, String)> =
        INHERITED.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect();
    env::set(&mut env, "HOSTNAME", pod.metadata.name.clone().unwrap_or_default());
    let declared = env::declared(pod, container, place, &values).map_err(config)?;
    for (name, value) in declared {
        env::set(&mut env, &name, value);
    }
    if role == Role::QueueProxy {
        env::point_sidecar(&mut env, place, shared.drain_quiet_ms);
    } else {
        env::point_user(&mut env, container, place);
    }

    let cwd = folder(&shared.data_dir, uid, container).map_err(config)?;
    let path = env.iter().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value);
    let argv =
        shared.images.resolve(container, path).map_err(|error| SpawnFailure::Image { message: error.to_string() })?;
    let mut argv: Vec<String> = argv.iter().map(|word| env::expand(word, &env)).collect();
    if let Some(program) = argv.first_mut() {
        *program = images::find_program(program, path, &cwd).ok_or_else(|| SpawnFailure::Exec {
            message: format!("exec: \"{program}\": executable file not found in $PATH"),
        })?;
    }
    let log = logs::file(&shared.data_dir, uid, &container.name, restart);
    if let Some(old) = restart.checked_sub(2) {
        // As the kubelet: the current instance and the one before.
        let old = logs::file(&shared.data_dir, uid, &container.name, old);
        let _ = std::fs::remove_file(old.with_extension("log.1"));
        let _ = std::fs::remove_file(old);
    }
    Ok(Command { argv, env, cwd, log: Some(log) })
}

/// The container's working directory: its own folder, unless the manifest names one that exists here.
fn folder(data_dir: &Path, uid: &str, container: &Container) -> Result<std::path::PathBuf, String> {
    if let Some(wanted) = container.working_dir.as_deref().filter(|dir| Path::new(dir).is_dir()) {
        return Ok(wanted.into());
    }
    let own = logs::pod_dir(data_dir, uid).join(&container.name).join("work");
    std::fs::create_dir_all(&own).map_err(|error| format!("{}: {error}", own.display()))?;
    std::path::absolute(&own).map_err(|error| error.to_string())
}

/// A process sees this machine's files and no others. Scratch space it finds by itself (its working directory, `TMPDIR`)
/// and a host path is where it is; content that would only be found at a mount is said to be missing.
fn mounts(pod: &Pod, container: &Container) -> Result<(), String> {
    let volumes = || pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    for mount in container.volume_mounts.iter().flatten() {
        let Some(volume) = volumes().find(|volume| volume.name == mount.name) else { continue };
        let here = volume.host_path.as_ref().is_some_and(|host| host.path == mount.mount_path);
        if !here && volume.empty_dir.is_none() {
            return Err(format!(
                "volume \"{}\" cannot be mounted at {}: containers run as processes of this machine; use env or envFrom",
                mount.name, mount.mount_path
            ));
        }
    }
    Ok(())
}

/// Reads the ConfigMaps and Secrets that exist; whoever needs one that does not says so.
async fn read(client: &Client, namespace: &str, names: Vec<(Source, String)>) -> Result<References, String> {
    let mut values = References::new();
    for (source, name) in names {
        let keys = match source {
            Source::ConfigMap => {
                let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
                api.get_opt(&name).await.map(|found| found.map(|found| found.data.unwrap_or_default()))
            }
            Source::Secret => {
                let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
                api.get_opt(&name).await.map(|found| found.map(secret_text))
            }
        };
        if let Some(keys) = keys.map_err(|error| format!("{name}: {error}"))? {
            values.insert((source, name), keys);
        }
    }
    Ok(values)
}

fn secret_text(secret: Secret) -> BTreeMap<String, String> {
    let data = secret.data.unwrap_or_default();
    data.into_iter().map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn mounts_that_would_be_missed_are_named() {
        for (volume, missed) in [
            (json!({"name": "v", "emptyDir": {}}), false),
            (json!({"name": "v", "hostPath": {"path": "/data"}}), false),
            (json!({"name": "v", "hostPath": {"path": "/other"}}), true),
            (json!({"name": "v", "configMap": {"name": "cm"}}), true),
            (json!({"name": "v", "secret": {"secretName": "s"}}), true),
        ] {
            let pod: Pod = serde_json::from_value(json!({"spec": {"volumes": [volume], "containers": []}})).unwrap();
            let container = json!({"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/data"}]});
            let result = mounts(&pod, &serde_json::from_value(container).unwrap());
            assert_eq!(result.is_err(), missed, "{volume}");
        }
    }

    #[test]
    fn a_working_directory_that_exists_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let container =
            |wanted: &str| Container { name: "c".into(), working_dir: Some(wanted.into()), ..Container::default() };
        assert_eq!(folder(dir.path(), "u", &container("/")).unwrap(), Path::new("/"));
        let own = dir.path().join("pods/u/c/work");
        assert_eq!(folder(dir.path(), "u", &container("/no/such/dir")).unwrap(), own);
        assert!(own.is_dir());
    }
}
