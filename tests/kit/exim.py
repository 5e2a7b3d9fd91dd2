"""How does Exim take our mail? One of the test's own, which keeps what it gets for one domain.

It may find out too late that it knows somebody not, and then writes a bounce to another server on this machine.
"""

from tests.kit.certificates import make_certificate
from tests.kit.enclave import EnclosedServer, unpacked

_CONFIGURATION = """\
exim_path = {program}
primary_hostname = {host_name}
spool_directory = {directory}/spool
log_file_path = {directory}/log/%slog
pid_file_path = {directory}/exim.pid
daemon_smtp_ports = {port}
local_interfaces = {address}
tls_advertise_hosts = *
tls_certificate = {certificate}
tls_privatekey = {key}
keep_environment =
deliver_drop_privilege
smtp_accept_queue_per_connection = 0
acl_smtp_rcpt = check_recipient
acl_smtp_data = accept_all
begin acl
check_recipient:
  deny message = relay not permitted
    domains = ! {domain}
  deny message = Unknown user
    local_parts = nobody
  accept
accept_all:
  accept
begin routers
{bounces}inbox:
  driver = accept
  transport = inbox_transport
begin transports
inbox_transport:
  driver = appendfile
  directory = {directory}/mail
  maildir_format
  envelope_to_add
  return_path_add
  user = Debian-exim
out:
  driver = smtp
  allow_localhost
"""
_BOUNCES = """\
to_others:
  driver = manualroute
  domains = ! {domain}
  route_list = * 127.0.0.1::{port}
  self = send
  transport = out
unknown_after_all:
  driver = redirect
  local_parts = later
  allow_fail
  data = :fail: Unknown user
"""


class Exim(EnclosedServer):
    """Knows everybody at its domain but `nobody`; offers STARTTLS.

    With `bounces_to`, a port of 127.0.0.1, it takes mail for `later`, and then reports there that the user is unknown.
    """

    users = ("Debian-exim",)

    def __init__(self, domain: str, *, address: str, port: int, bounces_to: int | None = None) -> None:
        super().__init__(domain, address=address, port=port)
        self._bounces = "" if bounces_to is None else _BOUNCES.format(domain=domain, port=bounces_to)

    def prepare(self) -> list[str]:
        """Write the configuration; return the command line."""
        program, directory = unpacked("/usr/sbin/exim4"), self.directory
        tls = make_certificate(directory, [self.host_name])
        for name in ("spool", "log"):
            (directory / name).mkdir()
            self.own(directory / name)
        self.own(tls.key)
        (directory / "exim.conf").write_text(
            _CONFIGURATION.format(
                program=program,
                host_name=self.host_name,
                directory=directory,
                address=self.address,
                port=self.smtp_port,
                domain=self.domain,
                bounces=self._bounces,
                certificate=tls.certificate,
                key=tls.key,
            )
        )
        return [str(program), "-C", f"{directory}/exim.conf", "-bdf"]
