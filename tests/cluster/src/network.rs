//! The addresses of a cluster: of its API server, which pods reach as the Service `kubernetes`, and of its pods. They are of
//! this machine's own network; the one of the API server is on the loopback interface.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};

use anyhow::{Context, bail};

use crate::place::Place;

/// How many clusters a machine can have at once.
const CLUSTERS: u8 = 16;

/// The port of the Service `kubernetes`, which the API server fixes.
const PORT: u16 = 443;

/// The addresses of one cluster.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    number: u8,
}

impl Network {
    /// Takes addresses that no other cluster of this machine has. They are given back with the place.
    ///
    /// # Errors
    /// Where none is left, or something on this machine listens on port 443 of all addresses.
    pub fn take(place: &Place) -> anyhow::Result<Self> {
        for number in 0..CLUSTERS {
            let network = Self { number };
            let address = network.api();
            // one that is there already cannot be added
            if place.add_address(*address.ip())? {
                TcpListener::bind(address).with_context(|| {
                    format!("{address}, where pods are to reach the API server: end what listens on port {PORT} of this machine")
                })?;
                return Ok(network);
            }
        }
        bail!("{CLUSTERS} clusters are on this machine: run `kerf-cluster down`, or end one")
    }

    /// Where the API server listens: the first address of the Services, which becomes the one of `kubernetes`.
    pub fn api(self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(198, 18, self.number, 1), PORT)
    }

    /// The addresses of Services, of those that are set aside for tests of networks (RFC 2544).
    pub fn services(self) -> String {
        format!("198.18.{}.0/24", self.number)
    }

    /// The address of the Service that would resolve names.
    pub fn dns(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, 10)
    }

    /// The addresses of the pods of a node, by its number.
    pub fn pods(self, node: usize) -> String {
        format!("10.{}.{node}.0/24", 224 + self.number)
    }
}
