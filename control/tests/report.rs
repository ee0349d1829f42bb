//! What agents and reporter tell the API server: real binaries, a test API server, dataplanes that the test plays.
#[allow(dead_code, reason = "shared with the other tests of the binary")]
mod rig;

use rig::http::{free_address, get};
use rig::{Control, Dataplane, PATIENCE, Session, command, endpoint};
use serde_json::{Value, json};
use sluice_apiserver::{DeleteOptions, Resource, Server};
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// The definitions that the binary prints, each one document of JSON.
fn definitions() -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_sluice-control")).arg("--definitions").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split("---\n").filter(|document| !document.is_empty()).map(|document| serde_json::from_str(document).unwrap()).collect()
}

struct Cluster {
    _runtime: Runtime,
    server: Server,
}

impl Cluster {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let builder = definitions().iter().fold(Server::builder(), |builder, crd| builder.resource(Resource::from_crd(crd).unwrap()));
        let server = runtime.block_on(builder.start()).unwrap();
        let cluster = Self { _runtime: runtime, server };
        cluster.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}));
        cluster
    }

    fn put(&self, object: Value) {
        self.server.store().put(object).unwrap();
    }

    fn put_pod(&self, name: &str, node: &str, ip: &str) {
        self.put(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "x", "name": name, "labels": {"app": "web"}},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
        }));
    }

    fn put_policy(&self, generation: i64, port: Value) {
        self.put(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "x", "name": "web", "uid": "uid of the policy", "generation": generation},
            "spec": {
                "podSelector": {"matchLabels": {"app": "web"}},
                "policyTypes": ["Ingress"],
                "ingress": [{"ports": [{"protocol": "TCP", "port": port}]}],
            },
        }));
    }

    fn objects(&self, resource: &str) -> Vec<Value> {
        self.server.store().values(resource).unwrap()
    }

    /// Waits until the status of the policy is so.
    fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.objects("policystatuses.sluice.network");
            if let Some(status) = found.iter().find(|status| status["metadata"]["name"] == "web" && wanted(&status["status"])) {
                return status.clone();
            }
            assert!(Instant::now() < deadline, "{what}: {found:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// An agent on a node, and its dataplane.
fn node(cluster: &Cluster, name: &str, pod: &str, ip: &str) -> (Control, Session) {
    let control = Control::start_on_with(&cluster.server.kubeconfig(), &["--node-name", name, "--tell-status"]);
    let session = Dataplane::start(&control).accept(vec![endpoint(0, pod, ip)], 0);
    (control, session)
}

struct Reporter {
    process: Child,
    admin: String,
    _dir: tempfile::TempDir,
}

impl Reporter {
    fn start(cluster: &Cluster) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let kubeconfig = dir.path().join("kubeconfig");
        std::fs::write(&kubeconfig, cluster.server.kubeconfig()).unwrap();
        let admin = free_address();
        let mut command = command(dir.path());
        command.args(["--kubernetes", "--report", "--metrics-bind-address", &admin, "--kubeconfig"]).arg(kubeconfig);
        Self { process: command.spawn().unwrap(), admin, _dir: dir }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_policy_is_realised_on_as_many_nodes_as_adopted_it() {
    let cluster = Cluster::start();
    cluster.put_pod("one", "n1", "10.0.0.1");
    cluster.put_pod("two", "n2", "10.0.0.2");
    cluster.put_policy(1, json!(80));
    let reporter = Reporter::start(&cluster);
    let status = cluster.until("nobody enforces it", |status| status["nodes"] == "0/2");
    assert_eq!(status["status"]["phase"], "Realizing");
    assert!(status["status"]["message"].as_str().unwrap().starts_with("not in force yet on n"), "{status:#}");
    assert_eq!(status["metadata"]["ownerReferences"][0]["uid"], "uid of the policy", "it goes with the policy");

    let (_one, mut first) = node(&cluster, "n1", "x/one", "10.0.0.1");
    first.publish_and_adopt();
    let status = cluster.until("one node", |status| status["nodes"] == "1/2");
    assert_eq!((&status["status"]["phase"], &status["status"]["message"]), (&json!("Realizing"), &json!("not in force yet on n2")));
    let (_two, mut second) = node(&cluster, "n2", "x/two", "10.0.0.2");
    second.publish_and_adopt();
    let realised = cluster.until("both nodes", |status| status["phase"] == "Realized");
    assert_eq!((&realised["status"]["nodes"], &realised["status"]["observedGeneration"]), (&json!("2/2"), &json!(1)));
    let node_status = cluster.objects("nodestatuses.sluice.network");
    assert_eq!(node_status.len(), 2);
    assert_eq!(node_status[0]["status"]["policies"]["x"]["web"]["generation"], 1, "{node_status:#?}");

    // what changes elsewhere makes another table here, and no write
    let version = || cluster.objects("nodestatuses.sluice.network")[0]["metadata"]["resourceVersion"].clone();
    let before = version();
    cluster.put_pod("elsewhere", "n3", "10.0.0.3");
    for session in [&mut first, &mut second] {
        session.publish_and_adopt();
    }
    cluster.until("a third node is concerned", |status| status["nodes"] == "2/3");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(version(), before, "{:#?}", cluster.objects("nodestatuses.sluice.network"));
    let store = cluster.server.store();
    store.delete(store.place("pods", "x", "elsewhere").unwrap(), &DeleteOptions::now()).unwrap();
    for session in [&mut first, &mut second] {
        session.publish_and_adopt();
    }

    // a reporter that is started again goes on with what it wrote
    drop(reporter);
    let reporter = Reporter::start(&cluster);
    cluster.put_policy(2, json!(81));
    cluster.until("the new state is in force nowhere", |status| status["observedGeneration"] == 2 && status["nodes"] == "0/2");
    first.publish_and_adopt();
    cluster.until("on one", |status| status["nodes"] == "1/2");
    second.publish_and_adopt();
    cluster.until("on both", |status| status["phase"] == "Realized" && status["observedGeneration"] == 2);
    let metrics = get(&reporter.admin, "/metrics").1;
    assert!(metrics.contains("sluice_reporter_policies{phase=\"Realized\"} 1\n"), "{metrics}");
    assert!(!metrics.contains("outcome=\"failed\""), "{metrics}");
    assert_eq!(["/livez", "/readyz"].map(|path| get(&reporter.admin, path).1), ["ok\n"; 2]);

    cluster.put_policy(3, json!(700_000));
    let refused = cluster.until("refused", |status| status["phase"] == "Refused");
    assert!(refused["status"]["message"].as_str().unwrap().contains("must be between 1 and 65535"), "{refused:#}");
    until("an event", || !cluster.objects("events.events.k8s.io").is_empty());
    std::thread::sleep(Duration::from_secs(2));
    let events = cluster.objects("events.events.k8s.io");
    assert_eq!(events.len(), 1, "once: {events:#?}");
    assert_eq!(
        (&events[0]["reason"], &events[0]["regarding"]["name"], &events[0]["type"]),
        (&json!("NotRepresented"), &json!("web"), &json!("Warning"))
    );
    assert!(events[0]["note"].as_str().unwrap().contains("spec.ingress[0].ports[0].port"), "{events:#?}");

    let store = cluster.server.store();
    store.delete(store.place("networkpolicies", "x", "web").unwrap(), &DeleteOptions::now()).unwrap();
    until("no status of a policy that is gone", || cluster.objects("policystatuses.sluice.network").is_empty());
}

#[test]
fn what_cannot_be_read_is_told_at_each_object() {
    let cluster = Cluster::start();
    cluster.put_policy(1, json!(80));
    let _reporter = Reporter::start(&cluster);
    cluster.until("read", |status| status["phase"] == "Realized");
    cluster.put(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "x", "name": "odd"}, "spec": {"nodeName": "n1", "containers": "nonsense"},
    }));
    cluster.put_policy(2, json!(700_000));
    let told = |cluster: &Cluster| -> Vec<(String, String)> {
        let events = cluster.objects("events.events.k8s.io");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let told = events.iter().map(|event| (text(&event["regarding"]["kind"]), text(&event["note"])));
        told.collect()
    };
    until("an event on each", || ["NetworkPolicy", "Pod"].iter().all(|wanted| told(&cluster).iter().any(|(kind, _)| kind == wanted)));
    // another problem of the same object is another event, with its own words
    cluster.put_policy(3, json!(800_000));
    until("a second event", || told(&cluster).iter().filter(|(kind, note)| kind == "NetworkPolicy" && note.contains("00000")).count() == 2);
}

#[test]
fn a_pod_that_is_selected_and_not_attached_is_told_at_the_pod() {
    let cluster = Cluster::start();
    cluster.put_pod("attached", "n1", "10.0.0.1");
    cluster.put_pod("stray", "n1", "10.0.0.2");
    cluster.put_pod("elsewhere", "n2", "10.0.0.3");
    cluster.put(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "x", "name": "on-host", "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "hostNetwork": true, "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running", "podIP": "192.0.2.1", "podIPs": [{"ip": "192.0.2.1"}]},
    }));
    cluster.put_policy(1, json!(80));
    let (_control, mut session) = node(&cluster, "n1", "x/attached", "10.0.0.1");
    session.publish_and_adopt();
    until("an event", || !cluster.objects("events.events.k8s.io").is_empty());
    std::thread::sleep(Duration::from_secs(6));
    let events = cluster.objects("events.events.k8s.io");
    assert_eq!(events.len(), 1, "once, and on no other pod: {events:#?}");
    assert_eq!(
        (&events[0]["reason"], &events[0]["regarding"]["kind"], &events[0]["regarding"]["name"]),
        (&json!("NotEnforced"), &json!("Pod"), &json!("stray"))
    );
    assert!(events[0]["note"].as_str().unwrap().contains("x/web"), "{events:#?}");
}

fn until(what: &str, wanted: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !wanted() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_definitions_are_complete() {
    let definitions = definitions();
    let names: Vec<&str> = definitions.iter().map(|crd| crd["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["nodestatuses.sluice.network", "policystatuses.sluice.network"]);
    for crd in &definitions {
        let version = &crd["spec"]["versions"][0];
        assert_eq!((&version["name"], &version["served"], &version["storage"]), (&json!("v1alpha1"), &json!(true), &json!(true)));
        assert!(version["subresources"]["status"].is_object(), "{crd:#}");
        // every column shows a field that the schema has
        for column in version["additionalPrinterColumns"].as_array().unwrap() {
            let path = column["jsonPath"].as_str().unwrap().replace(".status.", "/properties/status/properties/");
            assert!(version["schema"]["openAPIV3Schema"].pointer(&path).is_some(), "{column}");
        }
    }
}
