//! NetworkPolicies: created, edited, deleted.

use super::Script;
use super::objects::{APPS, TEAMS, TIERS, policy, selector};
use crate::store::{DeleteOptions, Part};
use serde_json::{Value, json};

impl Script {
    pub(super) fn change_policies(&mut self) -> String {
        let count = self.count("networkpolicies");
        let few = count < self.size.policies;
        match self.random.u32(..10) {
            0..3 if count > 0 && !few => self.delete_policy(),
            3..7 if count > 0 => self.edit_policy(),
            _ if count > self.size.policies * 2 => self.delete_policy(),
            _ => self.add_policy(),
        }
    }

    pub(super) fn add_policy(&mut self) -> String {
        let Some(namespace) = self.pick_namespace() else { return "no namespace for a policy".to_owned() };
        let (name, spec) = (format!("policy-{}", self.number()), self.policy_spec());
        self.create("networkpolicies", policy(&namespace, &name, spec))
    }

    fn edit_policy(&mut self) -> String {
        let Some(object) = self.pick("networkpolicies") else { return "no policy".to_owned() };
        let spec = self.policy_spec();
        // A merge would leave rules behind that the new spec does not have.
        let cleared = json!({"spec": {"ingress": spec.get("ingress"), "egress": spec.get("egress"), "podSelector": null}});
        self.patch("networkpolicies", &object, Part::Main, &cleared);
        self.patch("networkpolicies", &object, Part::Main, &json!({"spec": spec}))
    }

    fn delete_policy(&mut self) -> String {
        match self.pick("networkpolicies") {
            Some(object) => self.delete("networkpolicies", &object, &DeleteOptions::default()),
            None => "no policy".to_owned(),
        }
    }

    fn policy_spec(&mut self) -> Value {
        let label = self.pod_label();
        let mut spec = json!({"podSelector": selector(label)});
        if self.chance(75) {
            spec["ingress"] = self.rules("from");
        }
        if self.chance(40) {
            spec["egress"] = self.rules("to");
        }
        // Named in full, because a patch would keep what was there.
        spec["policyTypes"] = match (spec.get("ingress"), spec.get("egress")) {
            (Some(_), Some(_)) => json!(["Ingress", "Egress"]),
            (None, Some(_)) => json!(["Egress"]),
            _ => json!(["Ingress"]),
        };
        spec
    }

    fn pod_label(&mut self) -> Option<(&'static str, &'static str)> {
        match self.random.u32(..3) {
            0 => Some(("app", self.one_of(&APPS))),
            1 => Some(("tier", self.one_of(&TIERS))),
            _ => None,
        }
    }

    fn rules(&mut self, side: &str) -> Value {
        let count = self.random.usize(..3);
        (0..count).map(|_| self.rule(side)).collect()
    }

    fn rule(&mut self, side: &str) -> Value {
        let mut rule = json!({});
        if self.chance(80) {
            rule[side] = (0..self.random.usize(1..3)).map(|_| self.peer()).collect();
        }
        if self.chance(60) {
            rule["ports"] = json!([self.port()]);
        }
        rule
    }

    fn peer(&mut self) -> Value {
        let pods = selector(self.pod_label());
        let team = Some(("team", self.one_of(&TEAMS))).filter(|_| self.chance(70));
        match self.random.u32(..4) {
            0 => json!({"podSelector": pods}),
            1 => json!({"namespaceSelector": selector(team)}),
            2 => json!({"podSelector": pods, "namespaceSelector": selector(team)}),
            _ if self.chance(50) => {
                json!({"ipBlock": {"cidr": "10.128.0.0/16", "except": [format!("10.128.{}.0/24", self.random.u32(..4))]}})
            }
            _ => json!({"ipBlock": {"cidr": "fd00:10::/32"}}),
        }
    }

    fn port(&mut self) -> Value {
        match self.random.u32(..4) {
            0 => json!({"protocol": "TCP", "port": 8080}),
            1 => json!({"protocol": "TCP", "port": "http"}),
            2 => json!({"protocol": "UDP", "port": 53}),
            _ => json!({"protocol": "TCP", "port": 8000, "endPort": 8000 + self.random.u32(1..200)}),
        }
    }
}
