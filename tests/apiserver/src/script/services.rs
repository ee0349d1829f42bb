//! Services, and the EndpointSlices that follow them and their pods, late as in a real cluster.

use super::Script;
use super::objects::{APPS, endpoint, endpoint_slice, service};
use crate::store::{DeleteOptions, Object, Part};
use serde_json::{Value, json};
use std::sync::Arc;

impl Script {
    pub(super) fn change_services(&mut self) -> String {
        let count = self.count("services");
        match self.random.u32(..13) {
            0 if count > 0 => self.delete_service(),
            1 if count > 0 => self.edit_service(),
            2 if count < self.size.services * 2 => self.add_service(),
            _ if count < self.size.services => self.add_service(),
            _ => self.refresh_slices(),
        }
    }

    pub(super) fn add_service(&mut self) -> String {
        let Some(namespace) = self.pick_namespace() else { return "no namespace for a service".to_owned() };
        let (number, app) = (self.number(), self.one_of(&APPS));
        self.create("services", service(&namespace, &format!("service-{number}"), app, number))
    }

    fn edit_service(&mut self) -> String {
        let Some(object) = self.pick("services") else { return "no service".to_owned() };
        let app = self.one_of(&APPS);
        self.patch("services", &object, Part::Main, &json!({"spec": {"selector": {"app": app}}}))
    }

    fn delete_service(&mut self) -> String {
        let Some(object) = self.pick("services") else { return "no service".to_owned() };
        for slice in self.slices_of(&object) {
            self.delete("endpointslices", &slice, &DeleteOptions::default());
        }
        self.delete("services", &object, &DeleteOptions::default())
    }

    fn slices_of(&self, service: &Object) -> Vec<Arc<Object>> {
        let belongs = |slice: &&Arc<Object>| {
            slice.namespace() == service.namespace() && slice.label("kubernetes.io/service-name") == Some(service.name())
        };
        self.list("endpointslices").iter().filter(belongs).cloned().collect()
    }

    /// Brings the slices of some service up to date.
    fn refresh_slices(&mut self) -> String {
        let Some(object) = self.pick("services") else { return "no service".to_owned() };
        let service = object.value();
        let app = service["spec"]["selector"]["app"].as_str().unwrap_or_default().to_owned();
        let pods: Vec<Value> = self
            .list("pods")
            .iter()
            .filter(|pod| pod.namespace() == object.namespace() && pod.phase() == "Running" && pod.label("app") == Some(&app))
            .map(|pod| pod.value())
            .collect();
        let slices = self.slices_of(&object);
        for family in 0..2 {
            let endpoints = pods.iter().map(|pod| endpoint(pod, family)).collect();
            let slice = endpoint_slice(object.namespace(), object.name(), family, endpoints);
            let name = slice["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            match slices.iter().find(|known| known.name() == name) {
                Some(known) => self.patch("endpointslices", known, Part::Main, &json!({"endpoints": slice["endpoints"]})),
                None => self.create("endpointslices", slice),
            };
        }
        format!("slices of {} with {} pods", object.key(), pods.len())
    }
}
