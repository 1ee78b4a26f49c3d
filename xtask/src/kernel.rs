//! Unpacks kernel images: loaders want the plain arm64 image.
//!
//! Distributions also ship it gzip-compressed, or as an EFI program that carries it compressed
//! (Linux, drivers/firmware/efi/libstub/zboot-header.S).

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use flate2::read::MultiGzDecoder;
use verdigris_qemu::layout::ImageHeader;

use crate::paths;

/// Returns a plain image: the file itself, or an unpacked copy of it.
pub fn plain(image: &Path) -> Result<PathBuf> {
    let bytes = std::fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
    if ImageHeader::parse(&bytes).is_ok() {
        return Ok(image.canonicalize()?);
    }
    let unpacked = unpack(&bytes).with_context(|| format!("cannot use {}", image.display()))?;
    ImageHeader::parse(&unpacked)?;
    let copy = paths::target().join("run/Image");
    std::fs::create_dir_all(paths::target().join("run"))?;
    std::fs::write(&copy, unpacked)?;
    Ok(copy)
}

fn unpack(bytes: &[u8]) -> Result<Vec<u8>> {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return gunzip(bytes);
    }
    if bytes.starts_with(b"MZ") && bytes.get(4..8) == Some(b"zimg") && bytes.len() >= 64 {
        let word =
            |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes")) as usize;
        let payload = bytes.get(word(8)..).and_then(|rest| rest.get(..word(12)));
        let payload = payload.context("the payload reaches past the file")?;
        match bytes[24..].split(|byte| *byte == 0).next() {
            Some(b"gzip") => return gunzip(payload),
            Some(b"") => return Ok(payload.to_vec()),
            other => bail!(
                "its payload is compressed by {}, which is not supported: unpack it first",
                String::from_utf8_lossy(other.unwrap_or_default())
            ),
        }
    }
    bail!("it is neither an arm64 image nor a compressed one")
}

fn gunzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    MultiGzDecoder::new(bytes).read_to_end(&mut out).context("its compressed data is damaged")?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    fn zboot(method: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut file = b"MZ\0\0zimg".to_vec();
        file.extend(64u32.to_le_bytes());
        file.extend((payload.len() as u32).to_le_bytes());
        file.extend([0; 8]);
        file.extend(method);
        file.resize(64, 0);
        file.extend(payload);
        file.extend(b"tail");
        file
    }

    #[test]
    fn compressed_images_are_unpacked() {
        assert_eq!(unpack(&gzip(b"the image")).unwrap(), b"the image");
        assert_eq!(unpack(&zboot(b"gzip", &gzip(b"the image"))).unwrap(), b"the image");
    }

    #[test]
    fn what_cannot_be_unpacked_is_named() {
        let error = unpack(&zboot(b"zstd22", b"x")).unwrap_err().to_string();
        assert!(error.contains("zstd22"), "{error}");
        assert!(unpack(b"something else").is_err());
        assert!(unpack(&gzip(b"the image")[..12]).is_err());
    }
}
