//! `kubectl podcreds`, as an operator runs it: the program itself, beside a real API server and
//! real agents. EKS and IAM are stand-ins.

mod commands;
mod desk;
mod mistakes;
mod walkthrough;
