"""How does OpenSMTPD take our mail? One of the test's own, which keeps what it gets for one domain."""

from tests.kit.certificates import make_certificate
from tests.kit.enclave import EnclosedServer, unpacked

_CONFIGURATION = """\
pki peer cert "{certificate}"
pki peer key "{key}"
table inbox {{ "@{domain}" = opensmtpd }}
listen on {address} port {port} tls pki peer hostname {host_name}
action keep maildir "{directory}/mail" virtual <inbox>
match from any for rcpt-to "nobody@{domain}" reject
match from any for domain "{domain}" action keep
match from any reject
"""


class OpenSmtpd(EnclosedServer):
    """Knows everybody at its domain but `nobody`; no PIPELINING.

    It offers STARTTLS, but every handshake with Debian 12's 6.8 fails.
    """

    users = ("opensmtpd", "opensmtpq")
    in_memory = ("/var/lib", "/var/spool", "/var/mail", "/run")
    made = ("/var/lib/opensmtpd/empty", "/var/spool/smtpd")
    bound = ("/usr/libexec",)

    def prepare(self) -> list[str]:
        """Write the configuration; return the command line."""
        program, directory = unpacked("/usr/sbin/smtpd"), self.directory
        tls = make_certificate(directory, [self.host_name])
        tls.key.chmod(0o600)
        (directory / "smtpd.conf").write_text(
            _CONFIGURATION.format(
                certificate=tls.certificate,
                key=tls.key,
                domain=self.domain,
                address=self.address,
                port=self.smtp_port,
                host_name=self.host_name,
                directory=directory,
            )
        )
        return [str(program), "-d", "-f", f"{directory}/smtpd.conf"]
