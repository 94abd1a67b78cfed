#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Random operations on names in few directories: stress.py SEED SECONDS DIRECTORY"""
import os,random,sys,errno,time
seed=int(sys.argv[1]); random.seed(seed); end=time.time()+float(sys.argv[2])
os.chdir(sys.argv[3])
dirs=['d%d'%i for i in range(4)]+['d%d/s%d'%(i,j) for i in range(4) for j in range(3)]
for d in dirs:
    try: os.mkdir(d)
    except OSError: pass
names=['n%d'%i for i in range(30)]
ops=0; errs={}
import ctypes
libc=ctypes.CDLL(None,use_errno=True)
held=[]
def p(): return random.choice(dirs)+'/'+random.choice(names)
while time.time()<end:
    o=random.randrange(14)
    try:
        if o==0: os.close(os.open(p(),os.O_CREAT|os.O_RDWR))
        elif o==1: os.mkdir(p())
        elif o==2: os.unlink(p())
        elif o==3: os.rmdir(p())
        elif o==4: os.rename(p(),p())
        elif o==5: os.link(p(),p())
        elif o==6: os.symlink('x'*random.randrange(1,200),p())
        elif o==7: os.listdir(random.choice(dirs))
        elif o==8:
            q=p(); os.chmod(q,random.randrange(0o777)|0o700); os.stat(q)
        elif o==9:
            if libc.renameat2(-100,p().encode(),-100,p().encode(),random.choice([1,2,4])): raise OSError(ctypes.get_errno(),'')
        elif o==10:
            fd=os.open(random.choice(dirs),os.O_TMPFILE|os.O_RDWR); held.append(fd); os.write(fd,b'y'*random.randrange(9000))
            if random.random()<.5:
                if libc.linkat(-100,f'/proc/self/fd/{fd}'.encode(),-100,p().encode(),0x400): raise OSError(ctypes.get_errno(),'')
        elif o==11:
            while len(held)>8: os.close(held.pop(0))
            fd=os.open(p(),os.O_RDWR); held.append(fd); os.write(fd,b'z'*random.randrange(20000)); 
        elif o==12:
            fd=os.open(random.choice(dirs),os.O_RDONLY); os.fsync(fd); os.close(fd)
        elif o==13: os.mknod(p(),0o10644)
        ops+=1
    except OSError as e:
        errs[errno.errorcode.get(e.errno,e.errno)]=errs.get(errno.errorcode.get(e.errno,e.errno),0)+1
print(seed,ops,errs)
