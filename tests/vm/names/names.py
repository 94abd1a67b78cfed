#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Operations on names, one by one: names.py DIRECTORY"""
import os, ctypes, errno, stat, sys, struct
libc = ctypes.CDLL(None, use_errno=True)
top=os.path.abspath(sys.argv[1]); os.chdir(top)
def ren(a,b,f):
    r = libc.renameat2(-100,a.encode(),-100,b.encode(),f)
    return 0 if r==0 else ctypes.get_errno()
open('a','w').write('A'); open('b','w').write('B')
assert ren('a','b',1)==errno.EEXIST
assert ren('a','b',2)==0 and open('a').read()=='B'
os.mkdir('d1'); os.mkdir('d2'); os.mkdir('d1/s'); open('d2/f','w')
n1,n2=os.stat('d1').st_nlink,os.stat('d2').st_nlink
assert (n1,n2)==(3,2),(n1,n2)
assert ren('d1/s','d2/f',2)==0
assert (os.stat('d1').st_nlink,os.stat('d2').st_nlink)==(2,3)
assert stat.S_ISDIR(os.stat('d2/f').st_mode)
i1=os.stat('d1').st_ino
assert os.stat('d2/f/..').st_ino==os.stat('d2').st_ino
assert ren('b','bw',4)==0
st=os.lstat('b'); assert stat.S_ISCHR(st.st_mode) and st.st_rdev==0, st
assert open('bw').read()=='A'
assert ren('d2','d2/f/x',0)==errno.EINVAL
os.mkdir('e1'); os.mkdir('e2'); open('e2/x','w'); assert ren('e1','e2',0)==errno.ENOTEMPTY; os.unlink('e2/x'); assert ren('e1','e2',0)==0
assert not os.path.exists('e1')
# tmpfile
fd=os.open('.',os.O_TMPFILE|os.O_RDWR,0o600); os.write(fd,b'hello'); assert os.fstat(fd).st_nlink==0
assert libc.linkat(-100,f'/proc/self/fd/{fd}'.encode(),-100,b'linked',0x400)==0,ctypes.get_errno(); assert os.stat('linked').st_nlink==1; assert open('linked').read()=='hello'; os.close(fd)
fd=os.open('.',os.O_TMPFILE|os.O_RDWR,0o600); os.write(fd,b'x'*100000); os.close(fd)
# open unlinked
f=open('u','w+'); os.unlink('u'); f.write('zzz'); f.flush(); f.seek(0); assert f.read()=='zzz'; f.close()
# handles
class FH(ctypes.Structure): _fields_=[('bytes',ctypes.c_uint),('type',ctypes.c_int),('h',ctypes.c_ubyte*128)]
def handle(p):
    fh=FH(bytes=128); m=ctypes.c_int()
    r=libc.name_to_handle_at(-100,p.encode(),ctypes.byref(fh),ctypes.byref(m),0)
    assert r==0,ctypes.get_errno(); return fh
fh=handle('linked'); print('handle',fh.bytes,hex(fh.type))
open('/proc/sys/vm/drop_caches','w').write('2')
mfd=os.open(top,os.O_RDONLY)
fd=libc.open_by_handle_at(mfd,ctypes.byref(fh),os.O_RDONLY); assert fd>=0,ctypes.get_errno(); assert os.read(fd,10)==b'hello'; os.close(fd)
os.makedirs('p/q/r'); fh=handle('p/q/r'); ino=os.stat('p/q/r').st_ino
open('/proc/sys/vm/drop_caches','w').write('2')
fd=libc.open_by_handle_at(mfd,ctypes.byref(fh),os.O_RDONLY); assert fd>=0,ctypes.get_errno(); assert os.fstat(fd).st_ino==ino; print(os.readlink(f'/proc/self/fd/{fd}')); os.close(fd)
os.rmdir('p/q/r')
fd=libc.open_by_handle_at(mfd,ctypes.byref(fh),os.O_RDONLY); assert fd<0 and ctypes.get_errno()==errno.ESTALE
# readdir big with removal
os.mkdir('big')
for i in range(3000): os.mknod(f'big/file{i:05}', 0o100644)
n=os.listdir('big'); assert len(n)==3000==len(set(n)), len(n)
it=os.scandir('big'); c=0
for e in it:
    os.unlink(e.path); c+=1
assert c==3000, c
assert os.listdir('big')==[]
assert os.stat('big').st_nlink==2
os.rmdir('big')
# symlinks
os.symlink('x'*4095,'longlink'); assert len(os.readlink('longlink'))==4095; assert os.lstat('longlink').st_size==4095
try: os.symlink('x'*4096,'toolong'); assert 0
except OSError as e: assert e.errno==errno.ENAMETOOLONG
os.symlink('linked','sl'); assert open('sl').read()=='hello'
# times
os.utime('linked',ns=(10**18+1,-5*10**9-3)); s=os.stat('linked'); assert s.st_mtime_ns==-5*10**9-3 and s.st_atime_ns==10**18+1,(s.st_mtime_ns)
# setattr
os.chmod('linked',0o4755); os.chown('linked',1000,1000); assert os.stat('linked').st_mode&0o7777==0o755
os.truncate('linked',3); assert open('linked').read()=='hel'
os.truncate('linked',10**15); assert os.stat('linked').st_size==10**15; os.truncate('linked',2**63-1)
# hardlinks
for i in range(300): os.link('bw',f'hl{i}')
assert os.stat('bw').st_nlink==301
for i in range(300): os.unlink(f'hl{i}')
assert os.stat('bw').st_nlink==1
os.sync()
print('OK')
