// Empty round trips into the driver, without JavaScript: nanoseconds that `count` of them take.
#include <sys/ioctl.h>
#include <time.h>

double requests(int fd, unsigned long request, double count) {
  struct timespec begin, end;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  for (double i = 0; i < count; i++) ioctl(fd, request, 0);
  clock_gettime(CLOCK_MONOTONIC, &end);
  return (double)(end.tv_sec - begin.tv_sec) * 1e9 + (double)(end.tv_nsec - begin.tv_nsec);
}
