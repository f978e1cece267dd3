//! The rules that meshes set up, in the words of nftables. Each was written from what the mesh
//! documents of its iptables rules: the same matches in the same order.

/// A mesh, or something else that filters packets.
pub(crate) struct Mesh {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) rules: String,
    pub(crate) place: Place,
    /// The first and the last port of its proxy.
    pub(crate) ports: (&'static str, &'static str),
    /// Whether 169.254.170.23 and fd00:ec2::23 can be reached past the proxy.
    pub(crate) direct: (bool, bool),
}

/// Where the rules are.
pub(crate) enum Place {
    /// In the pod's network namespace.
    Pod,
    /// In the host's, for the pod's link, whose name is `VETH`.
    Host,
}

/// All that are tried.
pub(crate) fn meshes() -> Vec<Mesh> {
    let mesh = |id, name, rules, direct| Mesh {
        id,
        name,
        rules,
        place: Place::Pod,
        ports: ("15001", "15006"),
        direct,
    };
    vec![
        mesh("istio", "Istio, sidecar", both(ISTIO), (false, false)),
        mesh("ambient", "Istio, ambient", both(AMBIENT), (false, false)),
        Mesh {
            ports: ("4140", "4143"),
            ..mesh("linkerd", "Linkerd", both(LINKERD), (false, false))
        },
        mesh(
            "consul",
            "Consul, transparent proxy, with 169.254.170.23 excluded",
            only_ipv4(CONSUL_EXCLUDED),
            (true, true),
        ),
        mesh(
            "consul-dual",
            "Consul, transparent proxy, IPv4 and IPv6",
            both(CONSUL),
            (false, false),
        ),
        mesh("kuma", "Kuma", both(KUMA), (false, false)),
        mesh("osm", "Open Service Mesh", only_ipv4(OSM), (false, true)),
        mesh(
            "app-mesh",
            "AWS App Mesh",
            only_ipv4(APP_MESH),
            (false, true),
        ),
        mesh(
            "firewall",
            "a firewall in the pod: nothing out but DNS and loopback",
            FIREWALL.to_owned(),
            (false, false),
        ),
        Mesh {
            place: Place::Host,
            ..mesh(
                "policy",
                "a NetworkPolicy that denies all egress",
                POLICY.to_owned(),
                (false, false),
            )
        },
    ]
}

/// The output chain, then the prerouting chain. `IP` is the family, `LOCAL` its loopback address,
/// and `PROXY` the address from which Envoy calls the application.
type Rules = (&'static str, &'static str);

const ISTIO: Rules = (
    "IP saddr PROXY oifname lo return
     IP daddr != LOCAL oifname lo tcp dport != 15008 meta skuid 1337 redirect to :15006
     oifname lo meta skuid != 1337 return
     meta skuid 1337 return
     IP daddr != LOCAL oifname lo tcp dport != 15008 meta skgid 1337 redirect to :15006
     oifname lo meta skgid != 1337 return
     meta skgid 1337 return
     IP daddr LOCAL return
     meta l4proto tcp redirect to :15001",
    "tcp dport { 15008, 15090, 15021, 15020 } return
     meta l4proto tcp redirect to :15006",
);

const AMBIENT: Rules = (
    "meta l4proto tcp meta mark & 0xfff == 0x111 accept
     IP daddr != LOCAL oifname lo accept
     IP daddr != LOCAL meta l4proto tcp meta mark & 0xfff != 0x539 redirect to :15001",
    "IP daddr != LOCAL tcp dport != 15008 meta mark & 0xfff != 0x539 redirect to :15006",
);

const LINKERD: Rules = (
    "meta skuid 2102 return
     oifname lo return
     tcp dport { 4567, 4568 } return
     meta l4proto tcp redirect to :4140",
    "tcp dport { 4190, 4191, 4567, 4568 } return
     meta l4proto tcp redirect to :4143",
);

const CONSUL: Rules = (
    "meta skuid 5995 return
     IP daddr LOCAL return
     meta l4proto tcp redirect to :15001",
    "meta l4proto tcp redirect to :15002",
);

const CONSUL_EXCLUDED: Rules = (
    "IP daddr 169.254.170.23 return
     meta skuid 5995 return
     IP daddr LOCAL return
     meta l4proto tcp redirect to :15001",
    CONSUL.1,
);

const KUMA: Rules = (
    "IP saddr PROXY oifname lo return
     IP daddr != LOCAL oifname lo tcp dport != 53 meta skuid 5678 redirect to :15006
     oifname lo tcp dport != 53 meta skuid != 5678 return
     meta skuid 5678 return
     IP daddr LOCAL return
     meta l4proto tcp redirect to :15001",
    "meta l4proto tcp redirect to :15006",
);

const OSM: Rules = (
    "IP daddr != LOCAL oifname lo meta l4proto tcp meta skuid 1500 redirect to :15003
     oifname lo meta skuid != 1500 return
     meta skuid 1500 return
     IP daddr LOCAL return
     meta l4proto tcp redirect to :15001",
    "tcp dport { 15010, 15901, 15902, 15903, 15904 } return
     meta l4proto tcp redirect to :15003",
);

const APP_MESH: Rules = (
    "fib daddr type local return
     meta skuid 1337 return
     IP daddr { 169.254.169.254, 169.254.170.2 } return
     meta l4proto tcp redirect to :15001",
    "fib saddr type local return
     tcp dport 8080 redirect to :15002",
);

const FIREWALL: &str = "table inet firewall {
  chain output {
    type filter hook output priority 0; policy drop;
    oifname lo accept
    ct state established,related accept
    udp dport 53 accept
  }
}";

const POLICY: &str = "table inet VETH {
  chain input {
    type filter hook input priority 0
    iifname VETH meta l4proto tcp drop
  }
  chain forward {
    type filter hook forward priority 0
    iifname VETH meta l4proto tcp drop
  }
}";

fn only_ipv4(rules: Rules) -> String {
    table("ip", "127.0.0.1", "127.0.0.6", rules)
}

fn both(rules: Rules) -> String {
    only_ipv4(rules) + &table("ip6", "::1", "::6", rules)
}

fn table(family: &str, local: &str, proxy: &str, (output, prerouting): Rules) -> String {
    let place = |rules: &str| {
        let rules = rules.replace("IP ", &format!("{family} "));
        rules.replace("LOCAL", local).replace("PROXY", proxy)
    };
    let (output, prerouting) = (place(output), place(prerouting));
    format!(
        "table {family} mesh {{
           chain output {{
             type nat hook output priority -100
             {output}
           }}
           chain prerouting {{
             type nat hook prerouting priority -100
             {prerouting}
           }}
         }}\n"
    )
}
