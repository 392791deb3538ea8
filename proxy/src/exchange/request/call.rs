//! A call of gRPC: what it has come to, which its response says last.

use super::Request;
use crate::codec::grpc;

impl Request {
    /// The response may say what has become of a call of gRPC.
    #[inline]
    pub(in crate::exchange) fn note_grpc<'b>(&mut self, status: impl FnOnce() -> Option<&'b [u8]>) {
        if self.grpc
            && let Some(code) = status().and_then(|status| std::str::from_utf8(status).ok()?.parse().ok())
        {
            self.set_grpc(code);
        }
    }

    /// What has become of a call of gRPC.
    pub(in crate::exchange) fn set_grpc(&mut self, code: u32) {
        self.report.grpc_status = Some(code);
        if let Some(trace) = &mut self.trace {
            trace.handle_grpc(code);
        }
    }

    /// Whether it is a call of which it is not known yet what has become.
    #[inline]
    pub(in crate::exchange) fn awaits_grpc(&self) -> bool {
        self.grpc && self.report.grpc_status.is_none()
    }

    /// The status that it counts with: of a call, what its code means.
    #[inline]
    pub(in crate::exchange) fn counted_status(&self, status: u16) -> u16 {
        match self.report.grpc_status {
            Some(code) if status == 200 => grpc::http_status(code),
            _ => status,
        }
    }
}
