//! The places that a [`crate::Shelf`] may be in.

use std::io;
use std::path::Path;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;

/// A folder, made if it is not there. What was stored is on disk.
pub fn folder(path: &Path) -> io::Result<Arc<dyn ObjectStore>> {
    std::fs::create_dir_all(path)?;
    let store = LocalFileSystem::new_with_prefix(path)?;
    Ok(Arc::new(store.with_fsync(true).with_automatic_cleanup(true)))
}

/// A bucket of AWS, or at `endpoint` of whoever else speaks S3. Without `keys` (access key and secret) they are looked for as
/// AWS' own tools do.
pub fn bucket(
    name: &str,
    region: &str,
    endpoint: &str,
    keys: Option<(&str, &str)>,
) -> io::Result<Arc<dyn ObjectStore>> {
    // reqwest takes the process's provider. An error says that there is one already: the house has no other.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(name).with_region(region);
    if !endpoint.is_empty() {
        builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
    }
    if let Some((access, secret)) = keys {
        builder = builder.with_access_key_id(access).with_secret_access_key(secret);
    }
    Ok(Arc::new(builder.build()?))
}
