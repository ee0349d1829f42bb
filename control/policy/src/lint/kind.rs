//! The kinds of warnings: their names, which scripts may rely on, and what each means.

use std::fmt;
use std::str::FromStr;

/// What is legal but probably unmeant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WarningKind {
    /// A policy matches no pod.
    SelectsNothing,
    /// A peer matches no pod.
    PeerMatchesNothing,
    /// A pod may connect somewhere but resolve no name.
    DnsCutOff,
    /// A pod may ask DNS over UDP only.
    DnsWithoutTcp,
    /// No destination defines a named port.
    UndefinedNamedPort,
    /// An ipBlock contains addresses of pods.
    IpBlockCoversPods,
    /// An ipBlock names a service's address, which is never judged.
    ServiceAddress,
    /// `from:` or `to:` without an item.
    EmptyPeers,
    /// `ports:` without an item.
    EmptyPorts,
    /// A selector or `matchLabels:` with nothing after the colon.
    EmptySelector,
    /// Another rule allows at least the same.
    CoveredRule,
    /// Rules of a direction that `policyTypes` leaves out.
    IgnoredRules,
    /// An egress policy that denies all ingress because `policyTypes` is missing.
    ImpliedIngress,
    /// A policy that is called "allow" and allows nothing.
    AllowsNothing,
}

/// No such kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no warning {0:?}; there are {list}", list = WarningKind::ALL.map(WarningKind::id).join(", "))]
pub struct UnknownKind(pub String);

impl WarningKind {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Self; 14] = [
        Self::SelectsNothing,
        Self::PeerMatchesNothing,
        Self::DnsCutOff,
        Self::DnsWithoutTcp,
        Self::UndefinedNamedPort,
        Self::IpBlockCoversPods,
        Self::ServiceAddress,
        Self::EmptyPeers,
        Self::EmptyPorts,
        Self::EmptySelector,
        Self::CoveredRule,
        Self::IgnoredRules,
        Self::ImpliedIngress,
        Self::AllowsNothing,
    ];

    /// The stable name.
    pub fn id(self) -> &'static str {
        match self {
            Self::SelectsNothing => "selects-nothing",
            Self::PeerMatchesNothing => "peer-matches-nothing",
            Self::DnsCutOff => "dns-cut-off",
            Self::DnsWithoutTcp => "dns-without-tcp",
            Self::UndefinedNamedPort => "undefined-named-port",
            Self::IpBlockCoversPods => "ip-block-covers-pods",
            Self::ServiceAddress => "service-address",
            Self::EmptyPeers => "empty-peers",
            Self::EmptyPorts => "empty-ports",
            Self::EmptySelector => "empty-selector",
            Self::CoveredRule => "covered-rule",
            Self::IgnoredRules => "ignored-rules",
            Self::ImpliedIngress => "implied-ingress",
            Self::AllowsNothing => "allows-nothing",
        }
    }

    /// One line.
    pub fn summary(self) -> &'static str {
        self.text().0
    }

    /// What it means, when it is given, and what to write instead; some lines of plain text.
    pub fn explanation(self) -> &'static str {
        self.text().1
    }

    /// A spec that draws this warning.
    pub fn example(self) -> &'static str {
        self.text().2
    }

    fn text(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::SelectsNothing => SELECTS_NOTHING,
            Self::PeerMatchesNothing => PEER_MATCHES_NOTHING,
            Self::DnsCutOff => DNS_CUT_OFF,
            Self::DnsWithoutTcp => DNS_WITHOUT_TCP,
            Self::UndefinedNamedPort => UNDEFINED_NAMED_PORT,
            Self::IpBlockCoversPods => IP_BLOCK_COVERS_PODS,
            Self::ServiceAddress => SERVICE_ADDRESS,
            Self::EmptyPeers => EMPTY_PEERS,
            Self::EmptyPorts => EMPTY_PORTS,
            Self::EmptySelector => EMPTY_SELECTOR,
            Self::CoveredRule => COVERED_RULE,
            Self::IgnoredRules => IGNORED_RULES,
            Self::ImpliedIngress => IMPLIED_INGRESS,
            Self::AllowsNothing => ALLOWS_NOTHING,
        }
    }
}

impl fmt::Display for WarningKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl FromStr for WarningKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.id() == text).ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

type Text = (&'static str, &'static str, &'static str);

const SELECTS_NOTHING: Text = (
    "the policy matches no pod, so it isolates and allows nothing",
    "\
A NetworkPolicy selects pods of its own namespace by their labels. No pod of that namespace in the manifests carries the
labels, so the policy has no effect at present. Usually a label is misspelt, or `metadata.namespace` is missing or wrong.

Given only where the manifests hold pods of the namespace, or workloads with pod templates (Deployments and their like);
and always for a selector that contradicts itself. Pods on their node's network (hostNetwork) are never selected.",
    "\
# the pods carry app: web
spec:
  podSelector:
    matchLabels:
      app: wbe",
);
const PEER_MATCHES_NOTHING: Text = (
    "the peer matches no pod, so it allows nobody",
    "\
A podSelector peer means pods of the policy's own namespace; together with a namespaceSelector it means pods of the matching
namespaces. No pod in the manifests fits, so the peer opens no way at present.

Given only where the manifests hold pods of the namespaces in question. A namespaceSelector is judged where they hold
Namespace objects; a namespace named through kubernetes.io/metadata.name that they do not hold is taken to exist elsewhere.",
    "\
# the clients live in another namespace
  ingress:
  - from:
    - podSelector:
        matchLabels:
          app: client",
);
const DNS_CUT_OFF: Text = (
    "pods may connect to something, but cannot resolve its name",
    "\
Once a policy isolates a pod for egress, DNS is denied like everything else until a rule allows it. All policies that select
the pod are taken together: some rule allows something, and none allows port 53 UDP to anything that may be a DNS server.
A port without `protocol` means TCP, so `port: 53` alone does not allow DNS.

A pod that may connect to nothing at all draws no warning. A rule for all ports counts when its peers may hold a DNS server:
every peer, an ipBlock, a namespaceSelector that kube-system may satisfy, pods that define port 53. A rule that names port 53
counts whatever its peers.",
    "\
  egress:
  - to:
    - podSelector:
        matchLabels:
          app: backend
# a rule that helps:
  - to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: kube-system
    ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}",
);
const DNS_WITHOUT_TCP: Text = (
    "DNS is allowed over UDP, not over TCP",
    "\
A DNS answer that does not fit a UDP packet is asked for again over TCP port 53. Without TCP large answers (many addresses,
DNSSEC) fail, and only those: hard to find. All policies that select the pods are taken together.",
    "\
    ports:
    - {port: 53, protocol: UDP}
# add:
    - {port: 53, protocol: TCP}",
);
const UNDEFINED_NAMED_PORT: Text = (
    "no destination defines the named port, so the entry matches nothing",
    "\
A port's name is looked up in the containers of the destination: of the selected pod itself for ingress, of each peer pod for
egress. Name and protocol must both fit. None of the pods in the manifests that the rule may reach defines it.",
    "\
# the container calls its port http
  ingress:
  - ports:
    - port: https",
);
const IP_BLOCK_COVERS_PODS: Text = (
    "the ipBlock contains addresses of pods, which it matches too",
    "\
An ipBlock is compared with the packet's address, whoever has it: a block that was meant for the world outside admits every pod
whose address lies in it, whatever its labels. The reverse holds too: an address may change on the way (source NAT by a node or
a load balancer), and then the block sees the translated one.",
    "\
# pods have addresses in 10.0.0.0/8
  ingress:
  - from:
    - ipBlock:
        cidr: 0.0.0.0/0
# for the outside only:
        except:
        - 10.0.0.0/8",
);
const SERVICE_ADDRESS: Text = (
    "the ipBlock names a service's address, which is never judged",
    "\
Policies see the backend that a service picks, not the service's own address. An egress rule for a ClusterIP therefore opens no
way to the pods behind it. Select those pods instead.",
    "\
# 10.96.0.10 is the ClusterIP of a service
  egress:
  - to:
    - ipBlock:
        cidr: 10.96.0.10/32",
);
const EMPTY_PEERS: Text = (
    "`from:` or `to:` is there but empty: every peer",
    "\
An empty list of peers is the same as none: every peer, inside and outside the cluster. `to:` with nothing after it (null) and
`to: []` both mean that. Where that is meant, leave the field out: then nobody reads it as \"nobody\".",
    "\
  egress:
  - to:
    ports:
    - {port: 53, protocol: UDP}",
);
const EMPTY_PORTS: Text = (
    "`ports:` is there but empty: every port of every protocol",
    "\
An empty list of ports is the same as none: every port of every protocol. Where that is meant, leave the field out.",
    "\
  ingress:
  - from:
    - podSelector: {}
    ports: []",
);
const EMPTY_SELECTOR: Text = (
    "a selector with nothing after the colon: every pod",
    "\
`podSelector:` or `matchLabels:` with nothing after the colon is a selector without a requirement, and matches everything.
Labels that were commented out or lost their indentation leave this behind. Where every pod is meant, write `podSelector: {}`.",
    "\
spec:
  podSelector:
    matchLabels:
    # app: web",
);
const COVERED_RULE: Text = (
    "another rule already allows everything that this rule allows",
    "\
Policies add up and order never matters, so a rule that allows a part of what another one allows has no effect: taking it away
would change no verdict. Often the wider rule is the mistake.

A rule is called covered only when that is certain from the text alone, by one single rule of the same policy or of a policy in
the same namespace:
- every pod that its policy selects is selected by the other policy too: each requirement of the other selector follows from
  this one's, over all labels a pod could have;
- each of its peers lies inside one peer of the other rule: selectors as above, an ipBlock inside an ipBlock without touching
  the other's excepts;
- each of its ports lies inside one port entry of the other rule: same protocol, number or range inside the range, same name.
A rule that two others cover only together is not found. Of equal rules the later one is named (by policy, then position).",
    "\
  ingress:
  - from:
    - podSelector: {}
  - from:
    - podSelector:
        matchLabels:
          app: client",
);
const IGNORED_RULES: Text = (
    "rules of a direction that `policyTypes` leaves out have no effect",
    "\
`policyTypes`, where it is given, is taken as it stands: rules of a direction that it does not name are ignored, and the
pods are not isolated in that direction.",
    "\
  policyTypes:
  - Ingress
  egress:
  - to:
    - podSelector: {}",
);
const IMPLIED_INGRESS: Text = (
    "without `policyTypes` an egress policy also denies all ingress",
    "\
A missing `policyTypes` always means Ingress, and Egress as well if there are egress rules. A policy that only lists egress
rules therefore isolates its pods for ingress too, and allows nothing there. Write `policyTypes: [Egress]` if only egress is
meant.",
    "\
spec:
  podSelector: {}
  egress:
  - to:
    - podSelector: {}",
);
const ALLOWS_NOTHING: Text = (
    "the policy's name says \"allow\", but it has no rule and denies everything",
    "\
A policy isolates the pods that it selects in each of its directions, and allows only what a rule of it says. Without any rule
it denies everything there. To allow everything, write one empty rule.",
    "\
metadata:
  name: allow-all-ingress
spec:
  podSelector: {}
  policyTypes:
  - Ingress
# to allow all:
  ingress:
  - {}",
);
