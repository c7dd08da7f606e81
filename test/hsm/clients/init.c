// Process 1 inside User-Mode Linux: runs the script that hsm_script names, with its input, output and errors on serial
// lines of its own, tells how it ended, and powers the machine off.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static int open_line(const char *path) {
  int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
  struct termios modes;
  if (fd < 0) {
    perror(path);
    return -1;
  }
  // Bytes as they are: a terminal would make \r\n of \n.
  if (tcgetattr(fd, &modes) == 0) {
    cfmakeraw(&modes);
    tcsetattr(fd, TCSANOW, &modes);
  }
  return fd;
}

static int run(const char *script, int output, int errors) {
  pid_t child = fork(), ended;
  int status;
  if (child == 0) {
    dup2(output, 0);
    dup2(output, 1);
    dup2(errors, 2);
    execl("/bin/sh", "sh", script, (char *)0);
    perror("/bin/sh");
    _exit(127);
  }
  // Orphans of the script come here too.
  while ((ended = wait(&status)) != child && ended >= 0) continue;
  return ended < 0 ? 126 << 8 : status;
}

int main(void) {
  const char *script = getenv("hsm_script");
  int output, errors, end, status;
  mount("proc", "/proc", "proc", 0, 0);
  mount("sysfs", "/sys", "sysfs", 0, 0);
  mkdir("/dev/shm", 01777);
  mount("tmpfs", "/dev/shm", "tmpfs", 0, 0);
  output = open_line("/dev/ttyS0");
  errors = open_line("/dev/ttyS1");
  end = open_line("/dev/ttyS2");
  status = script == NULL ? 126 << 8 : run(script, output, errors);
  tcdrain(output);
  tcdrain(errors);
  if (WIFSIGNALED(status)) dprintf(end, "signal %d\n", WTERMSIG(status));
  else dprintf(end, "exit %d\n", WEXITSTATUS(status));
  tcdrain(end);
  reboot(RB_POWER_OFF);
  return 0;
}
