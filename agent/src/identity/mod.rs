//! Who is calling, and whether the token is theirs to use.
