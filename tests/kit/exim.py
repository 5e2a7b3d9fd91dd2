"""How does Exim take our mail? One of the test's own, which keeps what it gets for one domain."""

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
inbox:
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
"""


class Exim(EnclosedServer):
    """Knows everybody at its domain but `nobody`; offers STARTTLS."""

    users = ("Debian-exim",)

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
                certificate=tls.certificate,
                key=tls.key,
            )
        )
        return [str(program), "-C", f"{directory}/exim.conf", "-bdf"]
