//! What `--help` ends with.

/// For the server.
pub(super) const SERVER: &str = "\
Examples:
  podcreds server -c my-cluster
      Redirects the pods of this node, and serves 169.254.170.23 and [fd00:ec2::23] as well
      where `podcreds initialize` has made them.
  podcreds server -c my-cluster --datapath ebpf
      Gives nothing for a token alone: the kernel must identify the pod.
  podcreds server -c my-cluster --datapath node -b 127.0.0.1 -p 8080
      Needs no privileges. Try it with
      curl -H \"Authorization: $(cat TOKEN_FILE)\" http://127.0.0.1:8080/v1/credentials

Is it well?
  curl -s localhost:2703/readyz            ok, and on a line each what it has to do without
  curl -s localhost:2705/metrics | grep podcreds_paths
                                           whether pods are redirected, and how many of the
                                           host's addresses are served";

/// For what `podcreds initialize` leaves behind.
pub(super) const INITIALIZE: &str = "\
What there is afterwards:
  ip address show dev pod-id-link0
  ip route get 169.254.170.23";
