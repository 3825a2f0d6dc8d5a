//! The webhook's CA and certificate, as a Secret keeps them. Pure: keys are drawn, but no clock is read.
//!
//! The CA lives for years and signs a new certificate every few weeks, so that what the API server trusts stays the same
//! while certificates come and go. Where there must be another CA, the old one stays trusted beside it: replicas change
//! over one after the other.

use std::collections::BTreeMap;

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::api::ObjectMeta;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// Name of the Secret (upstream's).
pub const SECRET: &str = "webhook-certs";
/// Its keys, the first three upstream's.
const KEY: &str = "server-key.pem";
const CHAIN: &str = "server-cert.pem";
const TRUST: &str = "ca-cert.pem";
const CA_KEY: &str = "ca-key.pem";
/// Annotation: the days on which certificate and CA end, as `YYYY-MM-DD,YYYY-MM-DD`.
const ENDS: &str = "control.dormouse.dev/certificates-end";
/// Annotation: whom the certificate names.
const NAMES: &str = "control.dormouse.dev/certificate-names";

/// A certificate is good for so many days, and another is made when so many are left.
const DAYS: (i32, i32) = (30, 10);
/// The same of the CA.
const CA_DAYS: (i32, i32) = (1825, 365);
/// Most CAs that are trusted at once, the newest first.
const MOST_TRUSTED: usize = 2;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// What is served and trusted.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    /// Certificate, PEM.
    pub chain: String,
    /// Its key, PEM.
    pub key: String,
    /// What the API server is to trust, PEM; the newest first.
    pub trust: String,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key is nobody's business.
        f.debug_struct("Material").field("chain", &self.chain).field("trust", &self.trust).finish_non_exhaustive()
    }
}

/// What is to be done about the Secret.
#[derive(Debug)]
pub enum Decision {
    /// It is as it should be.
    Keep(Material),
    /// It must be written like this, and then this is served.
    Write(Box<Secret>, Material),
}

/// Looks at the Secret, if there is one, on behalf of a webhook that is known by `names` and has served until now what
/// these are trusted for.
pub fn decide(
    secret: Option<&Secret>,
    trusted_until_now: &str,
    names: &[String],
    now: Timestamp,
) -> Result<Decision, Error> {
    let today = now.to_zoned(TimeZone::UTC).date();
    let found = secret.and_then(|secret| Found::of(secret, names));
    if let Some(found) = &found
        && found.names_match
        && left(today, found.ends) > DAYS.1
        && left(today, found.ca_ends) > CA_DAYS.1
    {
        return Ok(Decision::Keep(found.material.clone()));
    }
    let kept_ca = found.as_ref().filter(|found| left(today, found.ca_ends) > CA_DAYS.1);
    let kept_ca = kept_ca.and_then(|found| Some((KeyPair::from_pem(&found.ca_key).ok()?, found)));
    let (ca_key, ca_ends, trust) = if let Some((key, found)) = kept_ca {
        (key, found.ca_ends, found.material.trust.clone())
    } else {
        let (key, ends) = (KeyPair::generate()?, after(today, CA_DAYS.0));
        let made = ca_params(today, ends).self_signed(&key)?.pem();
        let before = secret.map(|secret| text(secret, TRUST)).filter(|trust| !trust.is_empty());
        let before = before.unwrap_or_else(|| trusted_until_now.to_owned());
        (key, ends, trusted(&made, &before))
    };
    let ends = after(today, DAYS.0);
    let key = KeyPair::generate()?;
    let ca = ca_params(today, ca_ends);
    let chain = params(names, today, ends)?.signed_by(&key, &Issuer::from_params(&ca, &ca_key))?.pem();
    let material = Material { chain, key: key.serialize_pem(), trust };
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let mut written = secret.cloned().unwrap_or_else(|| Secret {
        metadata: ObjectMeta { name: Some(SECRET.to_owned()), ..ObjectMeta::default() },
        ..Secret::default()
    });
    written.data = Some(BTreeMap::from([
        (KEY.to_owned(), bytes(&material.key)),
        (CHAIN.to_owned(), bytes(&material.chain)),
        (TRUST.to_owned(), bytes(&material.trust)),
        (CA_KEY.to_owned(), bytes(&ca_key.serialize_pem())),
    ]));
    let notes = written.metadata.annotations.get_or_insert_default();
    notes.insert(ENDS.to_owned(), format!("{ends},{ca_ends}"));
    notes.insert(NAMES.to_owned(), names.join(","));
    Ok(Decision::Write(Box::new(written), material))
}

/// A Secret that one of us has written.
struct Found {
    material: Material,
    ca_key: String,
    ends: Date,
    ca_ends: Date,
    names_match: bool,
}

impl Found {
    fn of(secret: &Secret, names: &[String]) -> Option<Self> {
        let notes = secret.metadata.annotations.as_ref()?;
        let (ends, ca_ends) = notes.get(ENDS)?.split_once(',')?;
        let material = Material { chain: text(secret, CHAIN), key: text(secret, KEY), trust: text(secret, TRUST) };
        let is_whole = [&material.chain, &material.key, &material.trust].into_iter().all(|pem| !pem.is_empty());
        is_whole.then_some(Self {
            material,
            ca_key: text(secret, CA_KEY),
            ends: ends.parse().ok()?,
            ca_ends: ca_ends.parse().ok()?,
            names_match: notes.get(NAMES).is_some_and(|noted| *noted == names.join(",")),
        })
    }
}

fn text(secret: &Secret, key: &str) -> String {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    bytes.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).unwrap_or_default()
}

/// A new CA's certificate before those that were trusted until now.
fn trusted(new: &str, before: &str) -> String {
    const END: &str = "-----END CERTIFICATE-----";
    let old = before.split_inclusive(END).filter(|pem| pem.contains(END)).map(str::trim);
    [new.trim()].into_iter().chain(old).take(MOST_TRUSTED).map(|pem| format!("{pem}\n")).collect()
}

/// Days left, this one not among them.
fn left(today: Date, ends: Date) -> i32 {
    today.until(ends).map_or(0, |span| span.get_days())
}

fn after(today: Date, days: i32) -> Date {
    today.checked_add(days.days()).unwrap_or(Date::MAX)
}

fn params(names: &[String], today: Date, ends: Date) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = named(names.first().map_or("webhook", String::as_str));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(valid(params, today, ends))
}

/// The same CA each time, but for its days: what is signed depends on its name and key alone.
fn ca_params(today: Date, ends: Date) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("Dormouse webhook CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    valid(params, today, ends)
}

fn named(name: &str) -> DistinguishedName {
    let mut all = DistinguishedName::new();
    all.push(DnType::OrganizationName, "knative.dev");
    all.push(DnType::CommonName, name);
    all
}

/// From the day before, for clocks that are behind.
fn valid(mut params: CertificateParams, today: Date, ends: Date) -> CertificateParams {
    let day =
        |date: Date| date_time_ymd(i32::from(date.year()), date.month().cast_unsigned(), date.day().cast_unsigned());
    params.not_before = day(after(today, -1));
    params.not_after = day(ends);
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: i32) -> Timestamp {
        let date = after(jiff::civil::date(2026, 1, 1), day);
        date.to_zoned(TimeZone::UTC).unwrap().timestamp()
    }

    fn names() -> Vec<String> {
        vec!["webhook.knative-serving.svc".to_owned()]
    }

    fn written(decision: Decision) -> (Secret, Material) {
        match decision {
            Decision::Write(secret, material) => (*secret, material),
            Decision::Keep(_) => panic!("kept"),
        }
    }

    fn first() -> (Secret, Material) {
        written(decide(None, "", &names(), at(0)).unwrap())
    }

    #[test]
    fn a_certificate_is_kept_until_a_third_of_it_is_left() {
        let (secret, material) = first();
        for day in 0..20 {
            let decision = decide(Some(&secret), "", &names(), at(day)).unwrap();
            assert!(matches!(decision, Decision::Keep(kept) if kept == material), "day {day}");
        }
        let (_, next) = written(decide(Some(&secret), "", &names(), at(20)).unwrap());
        assert_ne!((&next.chain, &next.key), (&material.chain, &material.key));
        assert_eq!(next.trust, material.trust, "the CA stays");
    }

    #[test]
    fn an_old_ca_is_trusted_beside_the_new_one() {
        let (secret, old) = first();
        let (secret, new) = written(decide(Some(&secret), "", &names(), at(1825 - 365)).unwrap());
        assert!(new.trust.len() > old.trust.len() && new.trust.ends_with(&*format!("{}\n", old.trust.trim())));
        // Two of them, however often.
        let (_, third) = written(decide(Some(&secret), "", &names(), at(2 * (1825 - 365))).unwrap());
        assert_eq!(third.trust.matches("BEGIN").count(), 2);
        assert!(!third.trust.contains(old.trust.trim()));
    }

    #[test]
    fn others_secrets_and_other_names_are_replaced() {
        let (secret, material) = first();
        let mut foreign = secret.clone();
        foreign.metadata.annotations = None;
        let (mended, new) = written(decide(Some(&foreign), "", &names(), at(0)).unwrap());
        assert_ne!(new.chain, material.chain);
        assert!(new.trust.contains(material.trust.trim()), "what was trusted is not dropped at once");
        assert!(matches!(decide(Some(&mended), "", &names(), at(0)).unwrap(), Decision::Keep(_)));
        let mut broken = secret.clone();
        broken.data.as_mut().unwrap().remove(KEY);
        assert!(matches!(decide(Some(&broken), "", &names(), at(0)).unwrap(), Decision::Write(..)));
        let (_, lost) = written(decide(None, &material.trust, &names(), at(0)).unwrap());
        assert!(lost.trust.contains(material.trust.trim()), "nor where the Secret is gone");
        let other = vec!["elsewhere".to_owned()];
        let (_, moved) = written(decide(Some(&secret), "", &other, at(0)).unwrap());
        assert_eq!(moved.trust, material.trust);
    }

    #[test]
    fn a_key_is_not_printed() {
        let (_, material) = first();
        assert!(!format!("{material:?}").contains("PRIVATE"));
    }

    #[test]
    fn tls_takes_it() {
        let (_, material) = first();
        let tls =
            proxy::tls::Tls::new(&proxy::tls::Options::default(), material.chain.as_bytes(), material.key.as_bytes());
        tls.unwrap();
    }
}
