//! Which addresses are a service's: what is sent there is judged by where the node translates it to.

use k8s_openapi::api::core::v1::Service;
use std::net::IpAddr;

/// The cluster's, the external ones and the load balancer's. `None` as a cluster address marks a headless service.
pub(crate) fn service_addresses(service: &Service) -> Vec<IpAddr> {
    let mut texts: Vec<&str> = Vec::new();
    if let Some(spec) = &service.spec {
        texts.extend(spec.cluster_ip.as_deref());
        texts.extend(spec.cluster_ips.iter().flatten().map(String::as_str));
        texts.extend(spec.external_ips.iter().flatten().map(String::as_str));
    }
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    texts.extend(balancer.into_iter().flat_map(|balancer| balancer.ingress.iter().flatten()).filter_map(|ingress| ingress.ip.as_deref()));
    texts.into_iter().filter_map(|text| text.parse::<IpAddr>().ok()).map(|ip| ip.to_canonical()).collect()
}
