//! Object storage of a cloud as the store: `s3://bucket/prefix`, `gs://bucket/prefix`,
//! `az://container/prefix`.
//!
//! Credentials, region and endpoint come from the variables that each provider's own tools know
//! (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `GOOGLE_SERVICE_ACCOUNT`, `GOOGLE_BASE_URL`,
//! `AZURE_STORAGE_ACCOUNT_NAME`, ...), never from the URL, which stands in logs. Buckets of S3 are addressed by path, as every
//! compatible server understands it. A name is taken by a conditional put (`If-None-Match: *`),
//! on which everything else stands: a server that does not honour it is refused at the start.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};

use crate::storage::store::{Put, Store};
use crate::types::error::{Error, Result, SqlState};

/// Schemes that [`open`] knows.
pub const SCHEMES: [&str; 3] = ["s3", "gs", "az"];

/// Opens the storage of a URL; reads and writes nothing.
///
/// # Errors
/// When the URL or the environment does not say enough.
pub fn open(url: &str) -> Result<Store> {
    let refused = |what: &str| {
        Error::user(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("{url:?} is not a storage URL: {what}"),
        )
        .hint("Write s3://bucket/prefix; credentials come from the environment.")
    };
    let (scheme, rest) = url.split_once("://").ok_or_else(|| refused("it has no scheme"))?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() || bucket.contains('@') {
        return Err(refused("it has no bucket"));
    }
    let built = match scheme {
        "s3" => s3(bucket),
        "gs" => gs(bucket),
        "az" => MicrosoftAzureBuilder::from_env()
            .with_container_name(bucket)
            .with_retry(retry())
            .build()
            .map(|store| Arc::new(store) as Arc<dyn ObjectStore>),
        _ => return Err(refused("its scheme is unknown")),
    };
    let store = built.map_err(|error| {
        Error::user(SqlState::INVALID_PARAMETER_VALUE, format!("storage {url} cannot be used"))
            .detail(error.to_string())
            .hint("Credentials, region and endpoint come from the environment.")
    })?;
    let prefix = Path::from(prefix.trim_end_matches('/'));
    let objects: Arc<dyn ObjectStore> = match prefix.as_ref() {
        "" => store,
        _ => Arc::new(PrefixStore::new(store, prefix)),
    };
    Ok(Store::over(objects, url))
}

/// How a request is tried again before it has failed. The log, checkpoints and sinks try for as long
/// as it takes: a store that is away should be known of soon.
fn retry() -> RetryConfig {
    let pause_max = Duration::from_secs(2);
    RetryConfig {
        backoff: BackoffConfig { max_backoff: pause_max, ..BackoffConfig::default() },
        max_retries: 5,
        retry_timeout: Duration::from_secs(5),
    }
}

fn s3(bucket: &str) -> object_store::Result<Arc<dyn ObjectStore>> {
    let builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_retry(retry())
        .with_virtual_hosted_style_request(false);
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    // Who names an endpoint without encryption means it.
    let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    let builder = if plain { builder.with_allow_http(true) } else { builder };
    Ok(Arc::new(builder.build()?))
}

/// Finds out whether the store gives a name to one writer only.
///
/// # Errors
/// SQLSTATE 0A000 when it does not; others when it cannot be reached.
pub async fn check_conditional_put(store: &Store) -> Result<()> {
    // A name that nobody else writes, and two contents.
    let path = Path::from(format!("probe/{}", uuid::Uuid::new_v4()));
    let first = store.put_new(&path, Bytes::from_static(b"first")).await?;
    let second = store.put_new(&path, Bytes::from_static(b"second")).await?;
    store.delete(&path).await?;
    match (first, second) {
        (Put::Written, Put::Taken(found)) if found == "first" => Ok(()),
        _ => Err(Error::unsupported(format!("storage {}", store.place()))
            .detail("It overwrites an object although it is asked not to (If-None-Match: *).")
            .hint("Use a server that supports conditional puts.")),
    }
}

fn gs(bucket: &str) -> object_store::Result<Arc<dyn ObjectStore>> {
    let builder = GoogleCloudStorageBuilder::from_env();
    let mut builder = builder.with_bucket_name(bucket).with_retry(retry());
    let endpoint = builder.get_config_value(&GoogleConfigKey::BaseUrl);
    if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
        let allow_http = GoogleConfigKey::Client(ClientConfigKey::AllowHttp);
        builder = builder.with_config(allow_http, "true");
    }
    Ok(Arc::new(builder.build()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_not_who() {
        for url in ["s3://", "s3:///prefix", "s3", "ftp://bucket", "s3://key:secret@bucket/x"] {
            let error = open(url).expect_err(url);
            assert_eq!(error.sqlstate().0, "22023", "{url}");
        }
        let store = open("s3://bucket/a/prefix/").expect("opens nothing");
        assert_eq!(store.place(), "s3://bucket/a/prefix/");
    }

    #[tokio::test]
    async fn a_store_that_keeps_its_word_passes() {
        let store = Store::over(Arc::new(object_store::memory::InMemory::new()), "memory");
        check_conditional_put(&store).await.expect("it keeps it");
        assert!(store.list("probe").await.expect("lists").is_empty());
    }
}
